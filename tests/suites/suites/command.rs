//! The command line: what it refuses, and the files that it writes.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::ensure;

use crate::trial::{Case, Scratch};

/// A start that isn't refused is ended after this long, with exit code 124.
const SECONDS: &str = "20";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("command", "bad_settings_exit_2_and_name_the_flag", bad_settings),
        Case::alone("command", "bad_settings_in_a_file_or_a_variable_are_named", bad_settings_elsewhere),
        Case::alone("command", "the_crds_in_manifests_are_current", crds),
        Case::alone("command", "the_rights_of_a_ring_are_printed", rbac),
    ]
}

fn ringmaster(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    ringmaster_with(arguments, &[])
}

/// Exit code and standard error, of a start that must not last.
fn ringmaster_with(arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new("timeout")
        .args([SECONDS, env!("CARGO_BIN_EXE_ringmaster")])
        .args(arguments)
        .envs(variables.iter().copied())
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Bad arguments of a command, and what the line that refuses them says: where, and what to give instead.
type Bad = (&'static [&'static str], &'static [&'static str]);

const RUN: &[Bad] = &[
    (&["--config=/nonexistent/file.yaml"], &["--config", "cannot read /nonexistent/file.yaml"]),
    (&["--config=Cargo.lock"], &["--config", "Cargo.lock", ".yaml, .yml or .toml"]),
    (&["--config=deny.toml"], &["in deny.toml is not a setting", "ringmaster run --help"]),
    (&["--workers=0"], &["--workers", "from 1 to 4096"]),
    (&["--workers", "-1"], &["--workers", "from 1 to 4096"]),
    (&["--workers=4097"], &["--workers", "from 1 to 4096"]),
    (&["-workers=many"], &["--workers", "from 1 to 4096"]),
    (&["--discovery-interval=-1s"], &["--discovery-interval", "from 1s to 24h"]),
    (&["--discovery-interval=30"], &["--discovery-interval", "30s"]),
    (&["--cache-flush-interval=500ms"], &["--cache-flush-interval", "at least 1s, or 0 for never"]),
    (&["--cache-flush-interval=169h"], &["--cache-flush-interval", "to 168h"]),
    (&["--target-label-selector=a in b"], &["--target-label-selector", "a in b"]),
    (&["--member-name=A.b"], &["--member-name", "1 to 50 lower-case letters, digits and dashes"]),
    (&["--lease-namespace=-x"], &["--lease-namespace", "1 to 63 lower-case letters, digits and dashes"]),
    (&["--lease-duration=0.5s"], &["--lease-duration", "from 1s to 10m"]),
    (&["--lease-duration=14s"], &["--lease-duration", "15s"]),
    (&["--renew-deadline=10ms"], &["--renew-deadline", "from 100ms to 1h"]),
    (&["--renew-deadline=1s"], &["--renew-deadline", "--retry-period"]),
    (&["--retry-period=never"], &["--retry-period", "from 100ms to 1h"]),
    (&["--metrics-address=nowhere"], &["--metrics-address", "IP:PORT", "0 to turn it off"]),
    (&["--metrics-address=:65536"], &["--metrics-address", "IP:PORT"]),
    (&["--health-probe-bind-address=8081"], &["--health-probe-bind-address", ":PORT for all interfaces"]),
    (
        &["--metrics-address=:1234", "--health-probe-bind-address=127.0.0.1:1234"],
        &["--health-probe-bind-address", "--metrics-address has the same port", "give two"],
    ),
    (&["--events-qps=0"], &["--events-qps", "above 0, at most 1000"]),
    (&["--events-qps=1001"], &["--events-qps", "above 0, at most 1000"]),
    (&["--events-burst=0"], &["--events-burst", "from 1 to 10000"]),
    (&["--hook-allow-loopback=maybe"], &["--hook-allow-loopback", "true or false"]),
    (&["--hook-resolve=x"], &["--hook-resolve", "HOST:PORT=ADDR"]),
    (&["--hook-resolve=a:1=::1", "--hook-resolve=a:1=::2"], &["--hook-resolve", "an entry already; remove one"]),
    (&["--ring-admission-address=9443"], &["--ring-admission-address", ":PORT for all interfaces"]),
    (
        &["--metrics-address=:1234", "--ring-admission-address=127.0.0.1:1234"],
        &["--ring-admission-address", "have the same port", "give another one"],
    ),
    (&["--ring-admission-service=admission"], &["--ring-admission-service", "NAMESPACE/NAME"]),
    (&["--ring-admission-url=http://127.0.0.1:1"], &["--ring-admission-url", "https://"]),
    (
        &["--ring-admission-service=a/b", "--ring-admission-url=https://127.0.0.1:1"],
        &["--ring-admission-url", "--ring-admission-service says it too", "give one of them"],
    ),
    (&["--log-format=xml"], &["--log-format", "pretty or json"]),
    (&["--log-level=loud"], &["--log-level", "give error, warn, info, debug, trace or off"]),
    (&["--apply-strategy=force"], &["--apply-strategy", "dynamic-apply"]),
    (&["--apply-strategy-ssa-field-manager=a b"], &["--apply-strategy-ssa-field-manager", "without blanks"]),
    (&["--zap-devel=maybe"], &["--zap-devel", "true or false"]),
    (&["--zap-encoder=xml"], &["--zap-encoder", "console or json"]),
    (&["--zap-log-level=128"], &["--zap-log-level", "from 1 to 127"]),
    (&["--client-go-qps=fast"], &["--client-go-qps", "a number"]),
    (&["--client-go-burst=fast"], &["--client-go-burst", "a number"]),
    (&["--leader-election=maybe"], &["--leader-election", "true or false"]),
    (&["--leader-election-id=A"], &["--leader-election-id", "as in a Lease's name"]),
    (&["--leader-election-namespace=a.b"], &["--leader-election-namespace", "letters, digits and dashes"]),
    (&["--no-such-flag"], &["--no-such-flag", "--help"]),
    (&["surplus"], &["surplus", "--help"]),
];

/// Those flags of `run` for which any text will do; a kubeconfig that isn't there is a start that fails, with 1.
const RUN_ANYTHING: &[&str] = &[
    "help",
    "kubeconfig",
    "leader-election-resource-lock",
    "pprof-address",
    "zap-stacktrace-level",
    "zap-time-encoding",
];

/// What `dev` has beyond `run`.
const DEV: &[Bad] = &[
    (&["--apply=/nonexistent"], &["--apply /nonexistent", "no such file"]),
    (&["--hook="], &["--hook", "is empty"]),
    (&["--listen=0.0.0.0:0"], &["--listen", "127.0.0.1:PORT"]),
    (&["--listen=nowhere"], &["--listen", "IP:PORT"]),
    (&["--state=/tmp"], &["--state /tmp", "is a folder; name a file"]),
    (&["--write-kubeconfig=/tmp"], &["--write-kubeconfig /tmp", "is a folder; name a file"]),
    (&["--state=x", "--write-kubeconfig=x"], &["--state x", "--write-kubeconfig", "the same file; give two"]),
    (&["--kubeconfig=x"], &["--kubeconfig", "an API server of its own", "ringmaster run"]),
    (&["--workers=0"], &["--workers", "from 1 to 4096"]),
];

const DEMO: &[Bad] = &[
    (&["--websites=0"], &["--websites", "1 to 5000"]),
    (&["--websites=5001"], &["--websites", "1 to 5000"]),
    (&["--websites=many"], &["--websites", "many"]),
    (&["--members=0"], &["--members", "1 to 5"]),
    (&["--members=6"], &["--members", "1 to 5"]),
    (&["--webhooks=0"], &["--webhooks", "1 to 5"]),
    (&["--webhooks=6"], &["--webhooks", "1 to 5"]),
    (&["--once", "--timeout=0"], &["--timeout", "1 to 86400"]),
    (&["--once", "--timeout=86401"], &["--timeout", "1 to 86400"]),
    (&["--timeout=5"], &["--once"]),
    (&["--once=maybe"], &["--once", "maybe"]),
    (&["--hook=perl"], &["--hook", "python, go"]),
    (&["--listen=8.8.8.8:80"], &["--listen", "127.0.0.1:PORT"]),
    (&["--write-kubeconfig=/tmp"], &["--write-kubeconfig /tmp", "is a folder; name a file"]),
];

const RBAC: &[Bad] = &[
    (&["--account=shop"], &["--account", "NAMESPACE:NAME"]),
    (&["--shard"], &["--account"]),
    (&["--lease-namespace=shop"], &["--shard"]),
    (&["--shard", "--account=shop:websites", "--lease-namespace=A"], &["--lease-namespace", "lower-case letters"]),
];

/// The long flags that a command's help names.
fn flags(command: &str) -> anyhow::Result<BTreeSet<String>> {
    let output = Command::new(env!("CARGO_BIN_EXE_ringmaster")).args([command, "--help"]).output()?;
    let help = String::from_utf8(output.stdout)?;
    let lines = help.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("-h, ").unwrap_or(line).strip_prefix("--")
    });
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>();
    Ok(lines.map(name).collect())
}

async fn bad_settings(_: Scratch) -> anyhow::Result<()> {
    let run = flags("run")?;
    ensure!(run.len() > 25, "{run:?}");
    let help: &[&str] = &["help"];
    let commands = [("run", RUN, RUN_ANYTHING), ("dev", DEV, help), ("demo", DEMO, help), ("rbac", RBAC, help)];
    for (command, table, anything) in commands {
        for (arguments, words) in table {
            let all: Vec<&str> = std::iter::once(command).chain(arguments.iter().copied()).collect();
            let (code, text) = ringmaster(&all)?;
            ensure!(code == Some(2), "{all:?}: exit {code:?}: {text}");
            ensure!(words.iter().all(|word| text.contains(word)), "{all:?} doesn't say {words:?}: {text}");
        }
        // A new flag needs a line above.
        let mut left = flags(command)?;
        if command == "dev" {
            left.retain(|flag| !run.contains(flag));
        }
        let is_tried = |flag: &String| {
            let starts = |argument: &str| {
                let name = argument.trim_start_matches('-');
                argument.starts_with('-') && name.split('=').next() == Some(flag.as_str())
            };
            anything.contains(&flag.as_str()) || table.iter().any(|(arguments, _)| arguments.iter().any(|a| starts(a)))
        };
        left.retain(|flag| !is_tried(flag));
        ensure!(left.is_empty(), "{command}: no bad value is tried for {left:?}");
    }
    let (code, text) = ringmaster(&["run", "--kubeconfig=/nonexistent/kubeconfig"])?;
    ensure!(code == Some(1) && text.contains("/nonexistent/kubeconfig"), "exit {code:?}: {text}");
    Ok(())
}

async fn bad_settings_elsewhere(scratch: Scratch) -> anyhow::Result<()> {
    let file = scratch.dir().join("settings.yaml");
    let config = format!("--config={}", file.display());
    for (text, words) in [
        ("workers: 0", ["workers in ", "settings.yaml", "from 1 to 4096"]),
        ("worker: 1", ["\"worker\" in ", "settings.yaml", "is not a setting"]),
        ("log_level: info", ["\"log_level\" in ", "settings.yaml", "write log-level"]),
        ("workers: [1]", ["workers in ", "settings.yaml", "one value"]),
        ("config: x.yaml", ["\"config\" in ", "settings.yaml", "can't name another"]),
        ("workers: [", ["--config", "settings.yaml", "cannot be parsed"]),
    ] {
        std::fs::write(&file, text)?;
        let (code, said) = ringmaster(&["run", &config])?;
        ensure!(code == Some(2) && words.iter().all(|word| said.contains(word)), "{text}: exit {code:?}: {said}");
    }
    for (variable, value, words) in [
        ("RINGMASTER_WORKERS", "0", "from 1 to 4096"),
        ("RINGMASTER_LOG_LEVEL", "loud", "give error, warn, info, debug, trace or off"),
        ("RINGMASTER_CONFIG", "/nonexistent/x.yaml", "cannot read /nonexistent/x.yaml"),
        ("RINGMASTER_HOOK_RESOLVE", "a", "HOST:PORT=ADDR"),
    ] {
        let (code, said) = ringmaster_with(&["run"], &[(variable, value)])?;
        ensure!(code == Some(2) && said.contains(variable) && said.contains(words), "{variable}: {code:?}: {said}");
    }
    let (code, said) = ringmaster_with(&["dev"], &[("RINGMASTER_KUBECONFIG", "x")])?;
    ensure!(code == Some(2) && said.contains("unset it"), "{code:?}: {said}");
    Ok(())
}

async fn crds(_: Scratch) -> anyhow::Result<()> {
    let (code, text) = ringmaster(&["crds", "--out", "manifests/crds", "--check"])?;
    ensure!(code == Some(0), "exit {code:?}: {text}");
    Ok(())
}

async fn rbac(scratch: Scratch) -> anyhow::Result<()> {
    let file = scratch.dir().join("ring.yaml");
    let ring = "{apiVersion: ringmaster.dev/v1alpha1, kind: ControllerRing, metadata: {name: r}, spec: {resources: [";
    std::fs::write(&file, format!("{ring}{{resource: secrets}}]}}}}"))?;
    let name = file.display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_ringmaster")).args(["rbac", &name]).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    for word in ["ClusterRole\n", "ClusterRoleBinding\n", "ringmaster:ring:r", "secrets", "ringmaster-system"] {
        ensure!(text.contains(word), "no {word:?}: {text}");
    }
    std::fs::write(&file, format!("{ring}{{resource: '*'}}]}}}}"))?;
    let (code, said) = ringmaster(&["rbac", &name])?;
    let words = [name.as_str(), "ControllerRing r", "spec.resources[0].resource"];
    ensure!(code == Some(1) && words.iter().all(|word| said.contains(word)), "exit {code:?}: {said}");
    Ok(())
}
