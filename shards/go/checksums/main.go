// A shard in Go: for each Secret of this shard, a ConfigMap with the checksums of its values.
// This file is flags and wiring, and has no logic.

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"ringmaster.dev/shard"
)

// Secrets that are worked on at the same time.
const workers = 4

func main() {
	os.Exit(run())
}

// run returns the exit code: 0 once the Lease is released, 1 after any error, 2 after wrong flags.
func run() int {
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil)))
	opts, kubeconfig, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := serve(ctrl.SetupSignalHandler(), opts, kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func parse(args []string) (shard.Options, string, error) {
	var opts shard.Options
	var kubeconfig, dialect string
	flags := flag.NewFlagSet("checksums", flag.ContinueOnError)
	flags.StringVar(&opts.Ring, "ring", "", "name of the `ring` (required)")
	flags.StringVar(&opts.Name, "name", "", "`name` of the shard and its Lease (default: the host name)")
	flags.StringVar(&opts.Namespace, "namespace", "", "`namespace` of the Lease (default: the Pod's)")
	flags.StringVar(&dialect, "dialect", "ringmaster", "`names` of the labels: ringmaster or controller-sharding")
	flags.DurationVar(&opts.LeaseDuration, "lease-duration", 0, "`time` without a renewal after which the shard is lost, such as 15s (default 15s)")
	flags.DurationVar(&opts.RenewDeadline, "renew-deadline", 0, "`time` for which the shard works after a renewal (default 10s)")
	flags.DurationVar(&opts.RetryPeriod, "retry-period", 0, "`time` between two renewals, such as 500ms (default 2s)")
	flags.StringVar(&kubeconfig, "kubeconfig", "", "`path` of a kubeconfig (default: $KUBECONFIG, else the Pod's service account)")
	if err := flags.Parse(args); err != nil {
		return opts, "", err
	}
	if flags.NArg() > 0 {
		return opts, "", fmt.Errorf("%q: takes flags only", flags.Arg(0))
	}
	if opts.Ring == "" {
		return opts, "", errors.New("--ring must be set to the name of the ring")
	}
	switch dialect {
	case "ringmaster":
		opts.Dialect = shard.Ringmaster
	case "controller-sharding":
		opts.Dialect = shard.ControllerSharding
	default:
		return opts, "", fmt.Errorf("--dialect %q: must be ringmaster or controller-sharding", dialect)
	}
	return opts, kubeconfig, nil
}

// serve runs the shard until the context ends or the right to work is lost.
func serve(ctx context.Context, opts shard.Options, kubeconfig string) error {
	config, err := configFrom(kubeconfig)
	if err != nil {
		return err
	}
	log := &events{out: os.Stdout}
	opts.Observe = func(event shard.Event) {
		told := line{Event: string(event.Type)}
		if event.Type == shard.Acknowledged {
			told.Object, told.RV = event.Object.String(), event.ResourceVersion
		}
		log.write(told)
	}
	s, err := shard.New(config, opts)
	if err != nil {
		return err
	}
	log.shard = s.Name()

	mgr, err := ctrl.NewManager(config, s.ManagerOptions(ctrl.Options{
		Metrics: metricsserver.Options{BindAddress: "0"},
	}, &corev1.Secret{}, &corev1.ConfigMap{}))
	if err != nil {
		return err
	}
	if err := s.Add(mgr); err != nil {
		return err
	}
	err = s.ControllerManagedBy(mgr, &corev1.Secret{}).
		Owns(&corev1.ConfigMap{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(s.Reconciler(&corev1.Secret{}, &checksums{
			client: mgr.GetClient(),
			live:   mgr.GetAPIReader(),
			labels: s.Labels(),
			events: log,
		}))
	if err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return err
	}
	return s.Err()
}

func configFrom(path string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	if path == "" {
		if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
			return rest.InClusterConfig()
		}
		rules = clientcmd.NewDefaultClientConfigLoadingRules()
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig: %w", err)
	}
	// The API server limits by priority and fairness.
	config.QPS = -1
	return config, nil
}
