//! Tests of the configuration: which source wins, what each refuses, and how errors call it.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use ringmaster_rings::admission::configuration::Reach;

use super::*;

/// The command's own words.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

fn flags(args: &[&str]) -> Flags {
    let args = std::iter::once("ringmaster").chain(args.iter().copied());
    Cli::try_parse_from(normalize_args(args)).unwrap().flags
}

fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>().into_iter()
}

fn load(args: &[&str]) -> Settings {
    Settings::load(flags(args), env(&[]), Place::Pod).unwrap()
}

fn refused(args: &[&str]) -> String {
    Settings::load(flags(args), env(&[]), Place::Pod).unwrap_err().to_string()
}

/// A file that is gone when the test ends.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, text: &str) -> Temporary {
        let path = std::env::temp_dir().join(format!("ringmaster-config-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Temporary(path)
    }

    fn flag(&self) -> String {
        format!("--config={}", self.0.display())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn refused_file(name: &str, text: &str) -> String {
    let file = Temporary::new(name, text);
    refused(&[&file.flag()])
}

#[test]
fn defaults_depend_on_the_cluster_only() {
    let inside = load(&[]);
    assert_eq!(inside.workers, 64);
    assert_eq!(inside.discovery_interval, Duration::from_secs(30));
    assert_eq!(inside.cache_flush_interval, Some(Duration::from_secs(1800)));
    assert_eq!(inside.metrics_address, "[::]:9999".parse().ok());
    assert_eq!(inside.health_probe_address, "[::]:8081".parse().ok());
    assert!((inside.events_qps - 1.0 / 300.0).abs() < 1e-12);
    assert_eq!(inside.events_burst, 25);
    assert_eq!(inside.log_level, "info");
    assert_eq!(inside.apply, Apply::Merge);
    assert!(inside.kubeconfig.is_none() && inside.target_label_selector.is_none() && inside.hook_resolve.is_empty());
    assert!(inside.notices.is_empty() && inside.unknown_variables.is_empty());
    assert_eq!((inside.log_format, inside.hook_allow_loopback), (telemetry::Format::Json, false));
    let outside = Settings::load(Flags::default(), env(&[]), Place::Machine).unwrap();
    assert_eq!((outside.log_format, outside.hook_allow_loopback), (telemetry::Format::Pretty, true));
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file = Temporary::new(
        "order.yaml",
        "workers: 3\nevents-burst: 4\nevents-qps: 0.5\ndiscovery-interval: 10s\nmetrics-address: 0\n\
         hook-resolve: ['a:1=127.0.0.1', 'b:2=127.0.0.1']\nhook-allow-loopback: true\n",
    );
    let vars = [("RINGMASTER_WORKERS", "2"), ("RINGMASTER_EVENTS_BURST", "5"), ("RINGMASTER_EVENTS_QPS", "")];
    let given = flags(&[&file.flag(), "--workers=1", "--hook-resolve=c:3=127.0.0.1"]);
    let settings = Settings::load(given, env(&vars), Place::Pod).unwrap();
    assert_eq!((settings.workers, settings.events_burst), (1, 5));
    assert!((settings.events_qps - 0.5).abs() < 1e-12, "an empty variable is absent");
    assert_eq!(settings.discovery_interval, Duration::from_secs(10));
    assert_eq!(settings.metrics_address, None);
    assert!(settings.hook_allow_loopback);
    let hosts: Vec<_> = settings.hook_resolve.iter().map(|entry| entry.host.as_str()).collect();
    assert_eq!(hosts, ["c"], "a list replaces a list");
}

#[test]
fn the_file_may_be_toml_and_named_by_a_variable() {
    let file =
        Temporary::new("named.toml", "workers = 7\nlog-format = \"pretty\"\nhook-resolve = [\"a:1=127.0.0.1\"]\n");
    let path = file.0.display().to_string();
    let settings = Settings::load(Flags::default(), env(&[("RINGMASTER_CONFIG", &path)]), Place::Pod).unwrap();
    assert_eq!((settings.workers, settings.hook_resolve.len()), (7, 1));
    let other = Temporary::new("other.yml", "workers: 8");
    let vars = [("RINGMASTER_CONFIG", path.as_str())];
    assert_eq!(Settings::load(flags(&[&other.flag()]), env(&vars), Place::Pod).unwrap().workers, 8);
}

#[test]
fn a_bad_file_is_named_with_its_key() {
    let text = refused_file("typo.yaml", "discovery_interval: 5s");
    assert!(text.contains("\"discovery_interval\" in ") && text.contains("typo.yaml"), "{text}");
    assert!(text.contains("write discovery-interval"), "{text}");
    assert!(refused_file("unknown.toml", "nothing = 1").contains("\"nothing\""));
    assert!(refused_file("index.yaml", "workers[99999999]: 1").contains("is not a setting"));
    assert!(refused_file("self.yaml", "config: other.yaml").contains("can't name another"));
    assert!(refused_file("list.yaml", "workers: [1, 2]").contains("workers in "));
    assert!(refused_file("map.yaml", "workers: {a: 1}").contains("no keys below"));
    assert!(refused_file("null.yaml", "workers:").contains("add a value"));
    assert!(refused_file("value.yaml", "workers: 0").contains("value.yaml is \"0\": give a whole number"));
    assert!(refused_file("broken.yaml", "workers: [").contains("cannot be parsed"));
    assert!(refused_file("broken.toml", "workers = ").contains("cannot be parsed"));
    assert!(refused_file("kind.json", "{}").contains(".yaml, .yml or .toml"));
    let long = format!("#{}\n", "x".repeat(64 * 1024));
    assert!(refused_file("long.yaml", &long).contains("larger than 65536 bytes"));
    assert!(!Path::new("/nonexistent/file.yaml").exists());
    assert!(refused(&["--config=/nonexistent/file.yaml"]).contains("--config: cannot read /nonexistent/file.yaml"));
    let vars = [("RINGMASTER_CONFIG", "/nonexistent/file.yaml")];
    let error = Settings::load(Flags::default(), env(&vars), Place::Pod).unwrap_err().to_string();
    assert!(error.starts_with("RINGMASTER_CONFIG: "), "{error}");
}

#[test]
fn an_empty_file_sets_nothing() {
    for (name, text) in [("empty.yaml", ""), ("comment.yaml", "# nothing\n"), ("empty.toml", "")] {
        let file = Temporary::new(name, text);
        assert_eq!(load(&[&file.flag()]).workers, 64, "{name}");
    }
}

#[test]
fn each_bad_value_is_refused_by_its_flag() {
    let bad = [
        "--workers=0",
        "--workers=4097",
        "--workers=many",
        "--workers=",
        "--workers=-1",
        "--discovery-interval=0",
        "--discovery-interval=30",
        "--discovery-interval=25h",
        "--cache-flush-interval=500ms",
        "--cache-flush-interval=-5m",
        "--cache-flush-interval=169h",
        "--target-label-selector=a in (",
        "--metrics-address=9999",
        "--metrics-address=",
        "--metrics-address=:65536",
        "--metrics-address=example.com:80",
        "--health-probe-bind-address=nowhere",
        "--events-qps=0",
        "--events-qps=nan",
        "--events-qps=inf",
        "--events-qps=-1",
        "--events-burst=0",
        "--events-burst=10001",
        "--hook-allow-loopback=yes",
        "--log-format=xml",
        "--log-level=inof",
        "--apply-strategy=kubectl",
        "--apply-strategy-ssa-field-manager=",
        "--apply-strategy-ssa-field-manager=a b",
        "--zap-devel=maybe",
        "--zap-encoder=text",
        "--zap-log-level=0",
        "--zap-log-level=128",
        "--zap-log-level=warn",
        "--client-go-qps=fast",
        "--client-go-burst=fast",
        "--leader-election=perhaps",
        "--leader-election-id=a..b",
        "--leader-election-namespace=a.b",
        "--hook-resolve=a:1",
        "--ring-admission-address=9443",
        "--ring-admission-address=:9999",
        "--ring-admission-address=127.0.0.1:8081",
        "--ring-admission-service=name",
        "--ring-admission-service=a/b:0",
        "--ring-admission-url=http://a",
        "--ring-admission-url=https://a:0",
    ];
    for flag in bad {
        let (name, value) = flag.split_once('=').unwrap();
        let text = refused(&[flag]);
        assert!(text.starts_with(&format!("{name} is {value:?}: ")), "{flag}: {text}");
    }
    assert_eq!(refused(&["--workers=0"]), "--workers is \"0\": give a whole number from 1 to 4096");
    let error = Settings::load(Flags::default(), env(&[("RINGMASTER_WORKERS", "x")]), Place::Pod).unwrap_err();
    assert!(error.to_string().starts_with("RINGMASTER_WORKERS is \"x\": "), "{error}");
    let text = refused(&[&format!("--workers={}", "9".repeat(5000))]);
    assert!(text.len() < 200, "a long value is cut: {text}");
}

#[test]
fn what_kubernetes_sets_for_a_service_of_our_name_changes_nothing() {
    let injected = [
        ("RINGMASTER_SERVICE_HOST", "10.96.0.7"),
        ("RINGMASTER_SERVICE_PORT", "9999"),
        ("RINGMASTER_SERVICE_PORT_METRICS", "9999"),
        ("RINGMASTER_PORT", "tcp://10.96.0.7:9999"),
        ("RINGMASTER_PORT_9999_TCP", "tcp://10.96.0.7:9999"),
        ("RINGMASTER_PORT_9999_TCP_PROTO", "tcp"),
        ("RINGMASTER_PORT_9999_TCP_PORT", "9999"),
        ("RINGMASTER_PORT_9999_TCP_ADDR", "10.96.0.7"),
        ("RINGMASTER_WORKERS_SERVICE_HOST", "10.96.0.8"),
        ("WORKERS", "0"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ];
    let settings = Settings::load(Flags::default(), env(&injected), Place::Pod).unwrap();
    assert_eq!(settings.workers, 64);
    assert_eq!(settings.unknown_variables.len(), 9);
    // No setting may ever get a name that such a variable can have.
    for name in super::flags::names() {
        let variable = super::flags::variable(&name);
        for end in ["_SERVICE_HOST", "_PORT", "_TCP", "_UDP", "_SCTP", "_PROTO", "_ADDR"] {
            assert!(!variable.ends_with(end), "{variable}");
        }
        assert!(!variable.contains("_SERVICE_PORT") && !variable.starts_with("RINGMASTER_PORT"), "{variable}");
    }
}

#[test]
fn a_truth_value_has_all_of_gos_forms() {
    for on in
        ["--hook-allow-loopback", "--hook-allow-loopback=true", "-hook-allow-loopback=1", "-hook-allow-loopback=T"]
    {
        assert!(load(&[on]).hook_allow_loopback, "{on}");
    }
    for off in ["--hook-allow-loopback=false", "-hook-allow-loopback=0", "--hook-allow-loopback=F"] {
        let settings = Settings::load(flags(&[off]), env(&[]), Place::Machine).unwrap();
        assert!(!settings.hook_allow_loopback, "{off}");
    }
    // As in Go, the next argument is never the value.
    assert!(Cli::try_parse_from(["ringmaster", "--zap-devel", "true"]).is_err());
    assert!(load(&["--hook-allow-loopback", "--workers=1"]).hook_allow_loopback);
}

#[test]
fn durations_are_gos() {
    let read = |text: &str| value::duration(text, &(Duration::ZERO..=Duration::from_secs(86400))).ok();
    let good = [("0", 0), ("0s", 0), ("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000)];
    for (text, millis) in good.into_iter().chain([("1h0m0s", 3_600_000), ("2m0.5s", 120_500), ("1000000us", 1000)]) {
        assert_eq!(read(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "5", "s", "1d", "-1s", "+1s", "1s-5s", "1 s", "PT1M", "1m30", "99999999999999999999h", "1e3s", "."]
    {
        assert_eq!(read(text), None, "{text:?}");
    }
    assert_eq!(load(&["--cache-flush-interval=0"]).cache_flush_interval, None);
    let fix = "give a duration from 1s to 24h, such as 30s or 1m30s";
    assert_eq!(refused(&["--discovery-interval", "-1s"]), format!("--discovery-interval is \"-1s\": {fix}"));
}

#[test]
fn addresses_may_be_off_or_free_and_not_the_same() {
    let settings = load(&["--metrics-address=127.0.0.1:0", "--health-probe-bind-address", "localhost:0"]);
    assert_eq!(settings.metrics_address, "127.0.0.1:0".parse().ok());
    assert_eq!(settings.health_probe_address, "127.0.0.1:0".parse().ok());
    assert_eq!(load(&["--metrics-address=[::1]:80"]).metrics_address, "[::1]:80".parse().ok());
    assert_eq!(load(&["-metrics-address=0"]).metrics_address, None);
    let text = refused(&["--metrics-address=127.0.0.1:8081"]);
    assert!(text.contains("--metrics-address has the same port"), "{text}");
    load(&["--metrics-address=127.0.0.1:80", "--health-probe-bind-address=127.0.0.2:80"]);
    load(&["--metrics-address=0", "--health-probe-bind-address=:9999"]);
}

#[test]
fn admission_is_off_unless_it_has_an_address() {
    assert_eq!(load(&[]).ring_admission, None);
    assert_eq!(load(&["--ring-admission-address=0"]).ring_admission, None);
    let settings = load(&["--ring-admission-address=:9443", "--lease-namespace=here"]);
    let reach = Reach::Service { namespace: "here".to_owned(), name: "ringmaster-admission".to_owned(), port: 443 };
    let address = "[::]:9443".parse().unwrap();
    assert_eq!(settings.ring_admission, Some(RingAdmission { address, reach }));
    let given = ["--ring-admission-address=:9443", "--ring-admission-service=a/b:1"];
    let reach = Reach::Service { namespace: "a".to_owned(), name: "b".to_owned(), port: 1 };
    assert_eq!(load(&given).ring_admission.unwrap().reach, reach);
    let given = ["--ring-admission-address=:9443", "--ring-admission-url=https://127.0.0.1:9443/"];
    let reach = load(&given).ring_admission.unwrap().reach;
    assert_eq!(reach, Reach::Url("https://127.0.0.1:9443".to_owned()));
    let text = refused(&["--ring-admission-service=a/b", "--ring-admission-url=https://a"]);
    assert!(text.starts_with("--ring-admission-url is ") && text.contains("--ring-admission-service"), "{text}");
}

#[test]
fn admission_without_effect_is_told() {
    let settings = load(&["--ring-admission-url=https://a"]);
    assert!(settings.ring_admission.is_none());
    assert!(settings.notices.iter().any(|notice| notice.contains("--ring-admission-address")), "{settings:?}");
    let settings = load(&["--ring-admission-address=:9443", "--target-label-selector=a=b"]);
    assert!(settings.ring_admission.is_none());
    assert!(settings.notices.iter().any(|notice| notice.contains("--target-label-selector")), "{settings:?}");
}

#[test]
fn hook_resolve_is_curls() {
    let read = |text: &str| value::hook_resolve(text).ok().map(|e| (e.host, e.port, e.address.to_string()));
    let good = [
        ("hook.default.svc:80=127.0.0.1", "hook.default.svc", 80, "127.0.0.1:80"),
        ("Hook:80=127.0.0.1:8080", "hook", 80, "127.0.0.1:8080"),
        ("hook:443=[::1]", "hook", 443, "[::1]:443"),
        ("hook:443=[::1]:8443", "hook", 443, "[::1]:8443"),
        ("hook:443=::1", "hook", 443, "[::1]:443"),
        ("[::1]:80=10.0.0.1", "::1", 80, "10.0.0.1:80"),
        ("[0:0::1]:80=10.0.0.1", "::1", 80, "10.0.0.1:80"),
        ("10.0.0.9:80=[fe80::1]:81", "10.0.0.9", 80, "[fe80::1]:81"),
    ];
    for (text, host, port, address) in good {
        assert_eq!(read(text), Some((host.to_owned(), port, address.to_owned())), "{text}");
    }
    let bad =
        ["", "hook", "hook=1.2.3.4", "hook:80", "hook:80=", "hook:0=1.2.3.4", "hook:80=other", "hook:80=1.2.3.4:0"];
    for text in bad.into_iter().chain([":80=1.2.3.4", "ho/ok:80=1.2.3.4", "*:80=1.2.3.4", "hook:80=[1.2.3.4]"]) {
        assert_eq!(read(text), None, "{text:?}");
    }
    let two = load(&["--hook-resolve=a:1=127.0.0.1", "--hook-resolve", "b:2=127.0.0.1,c:3=127.0.0.1"]);
    assert_eq!(two.hook_resolve.len(), 3);
    assert!(refused(&["--hook-resolve=a:1=127.0.0.1", "--hook-resolve=A:1=127.0.0.2"]).contains("an entry already"));
    let many: Vec<_> = (0..=MAX_HOOK_RESOLVES).map(|n| format!("h{n}:1=127.0.0.1")).collect();
    assert!(refused(&["--hook-resolve", &many.join(",")]).contains("at most 256"));
}

#[test]
fn zap_flags_become_ours_and_ours_win() {
    let log = |args: &[&str]| {
        let settings = load(args);
        (settings.log_format, settings.log_level)
    };
    use telemetry::Format::{Json, Pretty};
    assert_eq!(log(&["-zap-devel"]), (Pretty, "debug".to_owned()));
    assert_eq!(log(&["-zap-devel=false"]), (Json, "info".to_owned()));
    assert_eq!(log(&["-zap-devel", "-zap-encoder=json", "-zap-log-level", "error"]), (Json, "error".to_owned()));
    assert_eq!(log(&["--zap-log-level=4"]).1, "debug");
    assert_eq!(log(&["--zap-log-level=5"]).1, "trace");
    let ours = log(&["--zap-encoder=json", "--zap-log-level=5", "--log-format=pretty", "--log-level=warn,a=debug"]);
    assert_eq!(ours, (Pretty, "warn,a=debug".to_owned()));
    assert_eq!(log(&["--log-level="]).1, "info");
}

#[test]
fn what_is_ignored_is_told_once() {
    let args = [
        "-leader-election",
        "-leader-election-id=x",
        "-zap-time-encoding=iso8601",
        "-client-go-qps=20",
        "-client-go-burst=-1",
        "-pprof-address=:6060",
        "-apply-strategy=dynamic-apply",
        "-apply-strategy-ssa-field-manager=me",
    ];
    let settings = load(&args);
    assert_eq!(settings.notices.len(), 5, "{:#?}", settings.notices);
    let first = settings.notices.first().unwrap();
    assert!(first.starts_with("--leader-election is \"true\", which is ignored: "), "{first}");
    assert_eq!(settings.apply, Apply::Merge);
    let server_side = |manager: &str| Apply::ServerSide { manager: manager.into() };
    let settings = load(&["--apply-strategy=server-side-apply"]);
    assert_eq!((settings.apply, settings.notices.len()), (server_side("metacontroller"), 0));
    let settings = load(&["--apply-strategy=server-side-apply", "--apply-strategy-ssa-field-manager=me"]);
    assert_eq!((settings.apply, settings.notices.len()), (server_side("me"), 0));
    let silent = ["--pprof-address=0", "--client-go-qps", "-1", "--leader-election-namespace="];
    assert!(load(&silent).notices.is_empty());
}

#[test]
fn metacontrollers_lease_is_anywhere_unless_it_is_said() {
    let lease = |args: &[&str]| load(args).metacontroller_lease.to_string();
    assert_eq!(lease(&["--lease-namespace=mine"]), "metacontroller");
    let said = ["--lease-namespace=mine", "-leader-election-namespace=theirs", "-leader-election-id=the.one"];
    assert_eq!(lease(&said), "theirs/the.one");
    assert_eq!(lease(&["--lease-namespace=mine", "--leader-election-id="]), "metacontroller");
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    assert_eq!(load(&["--workers=1", "--workers=2"]).workers, 2);
    assert!(!load(&["--hook-allow-loopback", "--hook-allow-loopback=false"]).hook_allow_loopback);
}

#[test]
fn a_single_dash_is_doubled_for_known_flags_only() {
    let args = [
        "ringmaster",
        "run",
        "-zap-log-level=4",
        "-workers",
        "-1",
        "--workers=1",
        "-h",
        "-unknown=1",
        "--",
        "-workers",
    ];
    let want = [
        "ringmaster",
        "run",
        "--zap-log-level=4",
        "--workers",
        "-1",
        "--workers=1",
        "-h",
        "-unknown=1",
        "--",
        "-workers",
    ];
    assert_eq!(normalize_args(args), want.map(OsString::from));
}

#[test]
fn the_help_is_sound() {
    use clap::CommandFactory as _;
    let mut command = Cli::command();
    command.clone().debug_assert();
    let help = command.render_long_help().to_string();
    assert!(help.starts_with("The command's own words"), "{help}");
    assert!(super::flags::names().contains(&"zap-devel".to_owned()));
    assert_eq!(super::flags::variable("log-level"), "RINGMASTER_LOG_LEVEL");
}
