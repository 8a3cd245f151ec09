//! kube-apiserver, etcd and kube-controller-manager as child processes on loopback.
//!
//! Never listens beyond loopback, never downloads a binary: `tests/components/build` builds what is missing.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use crate::built::{self, Built};
use crate::child::Child;
use crate::server::audit;
use crate::server::pki::{self, Pki};

/// How long each component may take to end after SIGTERM before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The audit log is not rotated below this size, in MiB: a mark is an offset into one file.
const AUDIT_LOG_MIB: u32 = 4096;
/// Requests per second of the garbage collector and the namespace controller: the default of 20 is slow in tests.
const CONTROLLER_QPS: u32 = 200;

/// Gets the folder with the binaries; builds them once if need be, which takes minutes and tells so on stderr.
///
/// # Errors
/// The script fails although Go or `KUBEBUILDER_ASSETS` is there.
pub(crate) fn components() -> anyhow::Result<Built> {
    let without_go = "no kube-apiserver: install Go or set KUBEBUILDER_ASSETS (see tests/components/build)";
    built::by("tests/components/build", without_go, Some("KUBEBUILDER_ASSETS"))
}

/// What the components need to know of the run that they belong to.
pub(crate) struct Layout<'a> {
    /// Holds data, configuration and keys.
    pub(crate) dir: &'a Path,
    /// Holds the logs, the audit log too.
    pub(crate) logs: &'a Path,
    /// Keys and certificates.
    pub(crate) pki: &'a Pki,
    /// The lines of the token file: `token,user,uid,"group"`.
    pub(crate) tokens: &'a str,
    /// The token with which the controller-manager works.
    pub(crate) controller_token: &'a str,
    /// Whether every request is in the audit log before its answer is complete.
    pub(crate) audited: bool,
}

/// The three processes.
pub(crate) struct Real {
    binaries: PathBuf,
    dir: PathBuf,
    logs: PathBuf,
    api_args: Vec<String>,
    url: String,
    etcd: Child,
    api: Option<Child>,
    controllers: Option<Child>,
}

impl Real {
    /// Starts etcd and kube-apiserver on free ports. Neither is ready yet.
    ///
    /// # Errors
    /// A file can't be written or a process can't be started.
    pub(crate) fn start(binaries: &Path, layout: &Layout<'_>) -> anyhow::Result<Self> {
        let Layout { dir, logs, pki, tokens, controller_token, audited } = layout;
        let [client, peer, secure] = free_ports()?;
        let etcd_url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let url = format!("https://127.0.0.1:{secure}");
        let data = dir.join(format!("etcd-{client}"));
        let etcd_args = [
            "--name=suites".to_owned(),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=suites={peer_url}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        let token_file = pki::write(dir, "tokens.csv", tokens)?;
        let policy = pki::write(dir, "audit-policy.yaml", audit::POLICY)?;
        let kubeconfig = crate::server::kubeconfig(&url, &pki.ca_file, "controllers", controller_token);
        pki::write(dir, "controllers.kubeconfig", &kubeconfig)?;
        let mut api_args = vec![
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={secure}"),
            format!("--cert-dir={}", dir.display()),
            format!("--tls-cert-file={}", pki.cert_file.display()),
            format!("--tls-private-key-file={}", pki.key_file.display()),
            format!("--token-auth-file={}", token_file.display()),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", pki.service_account_public.display()),
            format!("--service-account-signing-key-file={}", pki.service_account_key.display()),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ];
        if *audited {
            api_args.extend([
                format!("--audit-policy-file={}", policy.display()),
                format!("--audit-log-path={}", audit_log(logs).display()),
                "--audit-log-format=json".to_owned(),
                // Exact counts: an entry is in the file before its answer is complete.
                "--audit-log-mode=blocking".to_owned(),
                format!("--audit-log-maxsize={AUDIT_LOG_MIB}"),
            ]);
        }
        let etcd = Child::start("etcd", &binaries.join("etcd"), &etcd_args, &logs.join("etcd.log"), |_| {})?;
        let mut real = Self {
            binaries: binaries.to_owned(),
            dir: dir.to_path_buf(),
            logs: logs.to_path_buf(),
            api_args,
            url,
            etcd,
            api: None,
            controllers: None,
        };
        real.start_api()?;
        Ok(real)
    }

    /// Where the API server listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Starts the API server (again), on the same port and data. It is not ready yet.
    ///
    /// # Errors
    /// It runs already, or can't be started.
    pub(crate) fn start_api(&mut self) -> anyhow::Result<()> {
        if self.api.is_some() {
            bail!("the API server runs already");
        }
        let (program, log) = (self.binaries.join("kube-apiserver"), self.logs.join("kube-apiserver.log"));
        self.api = Some(Child::start("kube-apiserver", &program, &self.api_args, &log, |_| {})?);
        Ok(())
    }

    /// The ids of its processes by name.
    pub(crate) fn processes(&self) -> Vec<(&'static str, u32)> {
        let named = [("kube-apiserver", self.api.as_ref()), ("kube-controller-manager", self.controllers.as_ref())];
        let mut ids = vec![("etcd", self.etcd.id())];
        ids.extend(named.into_iter().filter_map(|(name, child)| Some((name, child?.id()))));
        ids
    }

    /// The API server's process, for signals (`STOP` and `CONT` make a silent one).
    ///
    /// # Errors
    /// It doesn't run.
    pub(crate) fn api(&mut self) -> anyhow::Result<&mut Child> {
        self.api.as_mut().ok_or_else(|| anyhow!("the API server is stopped"))
    }

    /// Stops the API server: with SIGKILL at once, or with SIGTERM first.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn stop_api(&mut self, kill: bool) -> anyhow::Result<()> {
        if let Some(mut api) = self.api.take() {
            if kill {
                api.kill()?;
            } else {
                api.stop(STOP_GRACE)?;
            }
        }
        Ok(())
    }

    /// Starts the garbage collector and the namespace controller. Call it once the API server is ready.
    ///
    /// # Errors
    /// The process can't be started.
    pub(crate) fn start_controllers(&mut self) -> anyhow::Result<()> {
        let args = [
            format!("--kubeconfig={}", self.dir.join("controllers.kubeconfig").display()),
            "--controllers=garbagecollector,namespace".to_owned(),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=false".to_owned(),
            // No port at all; the address is there in case that ever changes.
            "--secure-port=0".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", self.dir.display()),
            format!("--kube-api-qps={CONTROLLER_QPS}"),
            format!("--kube-api-burst={CONTROLLER_QPS}"),
        ];
        let name = "kube-controller-manager";
        let log = self.logs.join("kube-controller-manager.log");
        self.controllers = Some(Child::start(name, &self.binaries.join(name), &args, &log, |_| {})?);
        Ok(())
    }

    /// Ends the garbage collector and the namespace controller.
    ///
    /// # Errors
    /// The process can't be ended.
    pub(crate) fn stop_controllers(&mut self) -> anyhow::Result<()> {
        self.controllers.take().map_or(Ok(()), |mut controllers| controllers.stop(STOP_GRACE).map(drop))
    }

    /// Fails with the end of its log if a process has ended that should run.
    ///
    /// # Errors
    /// See above.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.etcd.check()?;
        for child in [&mut self.api, &mut self.controllers].into_iter().flatten() {
            child.check()?;
        }
        Ok(())
    }

    /// Stops all three, last started first.
    ///
    /// # Errors
    /// A signal can't be sent; the others are stopped all the same.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        let controllers = self.controllers.take().map_or(Ok(()), |mut child| child.stop(STOP_GRACE).map(drop));
        let api = self.stop_api(false);
        let etcd = self.etcd.stop(STOP_GRACE).map(drop);
        controllers.and(api).and(etcd)
    }
}

/// The audit log in a folder of logs.
pub(crate) fn audit_log(logs: &Path) -> PathBuf {
    logs.join("audit.jsonl")
}

/// Different ports that were free a moment ago: held together, then let go. A clash after that is a failed start.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
