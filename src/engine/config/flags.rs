//! What can be set: the flags of `ringmaster run`, as text. The same names, with dashes, are the keys of the
//! configuration file, and with `RINGMASTER_` before them the environment's.
//!
//! Nothing is parsed or judged here: a value is read by the same code whichever source it came from.

use std::ffi::OsString;

use clap::Args as _;

/// Prefix of the environment variables that are read.
pub const ENV_PREFIX: &str = "RINGMASTER_";

/// Name of the flag that names the file. It is no key of the file itself.
pub(super) const CONFIG: &str = "config";

// The flags of `ringmaster run`, as given. An absent one is `None`.
//
// Names and meanings are Metacontroller's where it has the flag. A flag given twice counts once, with its last value,
// as in Go; `--hook-resolve` adds up.
#[expect(missing_docs, reason = "clap would show the text as the description of the command that takes the flags")]
#[derive(Debug, Clone, Default, clap::Args, serde::Serialize)]
#[command(args_override_self = true)]
#[serde(rename_all = "kebab-case")]
pub struct Flags {
    /// YAML or TOML file with the same names as these flags. A flag or a RINGMASTER_* variable wins over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,

    /// Kubeconfig file. Without it: the pod's service account, else $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<String>,

    /// How many parents this process syncs at once, over all controllers: 1 to 4096 [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub workers: Option<String>,

    /// For how long the API server's answer to which kinds it serves counts [default: 30s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub discovery_interval: Option<String>,

    /// How often every parent is synced again, at the lowest priority; 0 means never [default: 30m]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub cache_flush_interval: Option<String>,

    /// Only controllers with these labels are run, such as `env=prod,tier!=web` [default: all]
    #[arg(long, value_name = "SELECTOR", allow_hyphen_values = true)]
    pub target_label_selector: Option<String>,

    /// The beginning of this member's name, up to 50 letters, digits and dashes [default: the pod's name, else the host's]
    #[arg(long, value_name = "NAME")]
    pub member_name: Option<String>,

    /// Namespace of the members' Leases; those with the same one share the work [default: the pod's, else ringmaster-system]
    #[arg(long, value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// How long others wait for a member that is silent: at least 1.25 x (renew deadline + 2s) [default: 15s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub lease_duration: Option<String>,

    /// A member that couldn't renew its Lease for so long stops its work [default: 10s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub renew_deadline: Option<String>,

    /// How often a member renews its Lease and looks at the others [default: 2s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub retry_period: Option<String>,

    /// Where /metrics is served; 0 turns it off [default: :9999]
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_address: Option<String>,

    /// Where /healthz and /readyz are served; 0 turns them off [default: :8081]
    #[arg(long, value_name = "IP:PORT")]
    pub health_probe_bind_address: Option<String>,

    /// Events per second that one object may cause, once its burst is used up [default: 0.00333, one in five minutes]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub events_qps: Option<String>,

    /// Events that one object may cause at once: 1 to 10000 [default: 25]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub events_burst: Option<String>,

    /// Whether hooks may be at loopback addresses [default: true outside a cluster, false in one]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub hook_allow_loopback: Option<String>,

    /// Connect to ADDR (an IP or IP:PORT) for hooks at HOST:PORT, as curl's --resolve. Repeatable
    #[arg(long, value_name = "HOST:PORT=ADDR")]
    pub hook_resolve: Option<Vec<String>>,

    /// Where the admission webhook of external rings is served; 0 turns it off [default: 0]
    #[arg(long, value_name = "IP:PORT")]
    pub ring_admission_address: Option<String>,

    /// Service by which the API server calls it [default: ringmaster-admission in --lease-namespace, port 443]
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]")]
    pub ring_admission_service: Option<String>,

    /// URL by which the API server calls it instead: `https://HOST:PORT`
    #[arg(long, value_name = "URL")]
    pub ring_admission_url: Option<String>,

    /// pretty or json [default: json in a cluster, else pretty]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// error, warn, info, debug or trace, and levels of targets: `info,ringmaster_engine=debug` [default: info]
    #[arg(long, value_name = "DIRECTIVES")]
    pub log_level: Option<String>,

    /// How children of metacontroller.k8s.io controllers are written: dynamic-apply or server-side-apply [default: dynamic-apply]
    #[arg(long, value_name = "STRATEGY", help_heading = METACONTROLLER)]
    pub apply_strategy: Option<String>,

    /// Field manager of their server-side apply [default: metacontroller]
    #[arg(long, value_name = "NAME", help_heading = METACONTROLLER)]
    pub apply_strategy_ssa_field_manager: Option<String>,

    /// The same as --log-format pretty --log-level debug
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        help_heading = METACONTROLLER)]
    pub zap_devel: Option<String>,

    /// console or json; --log-format wins over it
    #[arg(long, value_name = "FORMAT", help_heading = METACONTROLLER)]
    pub zap_encoder: Option<String>,

    /// debug, info, error, or a verbosity: 1 to 4 is debug, more is trace; --log-level wins over it
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true, help_heading = METACONTROLLER)]
    pub zap_log_level: Option<String>,

    /// Accepted and ignored
    #[arg(long, value_name = "LEVEL", help_heading = METACONTROLLER)]
    pub zap_stacktrace_level: Option<String>,

    /// Accepted and ignored
    #[arg(long, value_name = "ENCODING", help_heading = METACONTROLLER)]
    pub zap_time_encoding: Option<String>,

    /// Accepted and ignored: requests to the API server have no client-side limit
    #[arg(long, value_name = "RATE", allow_negative_numbers = true, help_heading = METACONTROLLER)]
    pub client_go_qps: Option<String>,

    /// Accepted and ignored: requests to the API server have no client-side limit
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = METACONTROLLER)]
    pub client_go_burst: Option<String>,

    /// Accepted and ignored: there is no profiling server
    #[arg(long, value_name = "IP:PORT", help_heading = METACONTROLLER)]
    pub pprof_address: Option<String>,

    /// Accepted and ignored: members share the work and need no leader
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        help_heading = METACONTROLLER)]
    pub leader_election: Option<String>,

    /// Accepted and ignored
    #[arg(long, value_name = "KIND", help_heading = METACONTROLLER)]
    pub leader_election_resource_lock: Option<String>,

    /// Where Metacontroller's leader Lease is [default: looked for in all namespaces]
    #[arg(long, value_name = "NAMESPACE", help_heading = METACONTROLLER)]
    pub leader_election_namespace: Option<String>,

    /// Metacontroller's leader Lease: its controllers wait here while that is renewed [default: metacontroller]
    #[arg(long, value_name = "NAME", help_heading = METACONTROLLER)]
    pub leader_election_id: Option<String>,
}

/// Heading in the help of the flags that exist for Metacontroller's users only.
const METACONTROLLER: &str = "Metacontroller's flags";

/// The names of all flags, without dashes in front, in the order of the help.
pub(super) fn names() -> Vec<String> {
    let command = Flags::augment_args(clap::Command::new("run"));
    command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

/// The environment variable of a flag: `RINGMASTER_LOG_LEVEL` for `log-level`.
pub(super) fn variable(name: &str) -> String {
    format!("{ENV_PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// Gives Go's single-dash form of a known flag its second dash: `-zap-log-level=4` becomes `--zap-log-level=4`.
///
/// Call it on the whole command line before clap reads it. Everything else passes as it is, so do all arguments
/// after `--`.
pub fn normalize_args<I, T>(args: I) -> Vec<OsString>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let names = names();
    let mut literal = false;
    let mut normalized = Vec::new();
    for arg in args {
        let arg = arg.into();
        literal |= arg == "--";
        if !literal && is_single_dash(&arg, &names) {
            let mut longer = OsString::from("-");
            longer.push(&arg);
            normalized.push(longer);
        } else {
            normalized.push(arg);
        }
    }
    normalized
}

/// Whether the argument is a known flag behind exactly one dash. Its value may be anything, even not UTF-8.
fn is_single_dash(arg: &OsString, names: &[String]) -> bool {
    let text = arg.to_string_lossy();
    let Some(flag) = text.strip_prefix('-') else { return false };
    let name = flag.split_once('=').map_or(flag, |(name, _)| name);
    names.iter().any(|known| known == name)
}
