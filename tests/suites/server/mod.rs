//! The API server that a suite runs against: its address, its users, its audit log. Suites never know which kind it is.
//!
//! Never shared beyond this process, and never reachable from another machine.

pub(crate) mod audit;
mod embedded;
mod pki;
mod rbac;
mod real;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use ringmaster_apiserver::store::Limits;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::built::Built;
use crate::objects::{Objects, Resource, read_yaml};
use crate::wait;
use audit::{AuditEntry, Mark};
use embedded::Embedded;
use pki::Pki;
pub(crate) use pki::write as write_private;
pub(crate) use rbac::{Subject, grant};
pub(crate) use real::components;
use real::{Layout, Real};

/// Users for trials, `ringmaster-00` and on: how many can be leased at one time.
pub(crate) const USERS: usize = 64;
/// The group of those users; it has the shipped role and nothing else.
pub(crate) const GROUP: &str = "ringmaster-suites";
/// How long a server may take to be ready, and each of our kinds to be served.
const READY: Duration = Duration::from_secs(60);
/// How often a start is tried again on other ports after a clash.
const START_ATTEMPTS: usize = 3;

/// Which server a suite runs on: the first part of a trial's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// The embedded API server, in this process.
    Embedded,
    /// kube-apiserver, etcd and kube-controller-manager.
    Real,
}

impl ServerKind {
    /// Every kind, in the order of the list of trials.
    pub(crate) const ALL: [Self; 2] = [Self::Embedded, Self::Real];

    /// Its name in a trial's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Real => "real",
        }
    }
}

/// What a server is started with beside its kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// How many events of a kind the embedded server remembers, if not as many as by default.
    pub(crate) remembered: Option<usize>,
    /// Without an audit log, which a benchmark's writes shouldn't wait for.
    pub(crate) unaudited: bool,
}

/// What a start came to.
pub(crate) enum Started {
    /// It is ready, our CRDs are served, the shipped role is bound.
    Running(Box<Server>),
    /// It can't be had on this machine, and why.
    Unavailable(String),
}

enum Backend {
    Embedded(Box<Embedded>),
    Real(Box<Real>),
}

/// A running server.
pub(crate) struct Server {
    url: String,
    ca_der: Vec<u8>,
    ca_file: PathBuf,
    tokens: HashMap<String, String>,
    free_users: Mutex<VecDeque<usize>>,
    backend: Mutex<Backend>,
    logs: PathBuf,
    dir: TempDir,
    setup: Setup,
}

impl Server {
    /// Starts a server and prepares it; blocks, with a runtime of its own: call it outside of any.
    ///
    /// # Errors
    /// What failed, with the last lines of the process that failed.
    pub(crate) fn start(kind: ServerKind, setup: Setup) -> anyhow::Result<Started> {
        if kind == ServerKind::Embedded {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let server = Self::launch_embedded(setup)?;
            runtime.block_on(server.prepare())?;
            return Ok(Started::Running(Box::new(server)));
        }
        let binaries = match real::components()? {
            Built::Found(binaries) => binaries,
            Built::Unavailable(reason) => return Ok(Started::Unavailable(reason)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut attempt = 1;
        loop {
            let server = Self::launch(&binaries, setup)?;
            match runtime.block_on(server.prepare()) {
                Ok(()) => return Ok(Started::Running(Box::new(server))),
                Err(error) if attempt < START_ATTEMPTS && format!("{error:#}").contains("address already in use") => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn launch(binaries: &Path, setup: Setup) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("ringmaster-suites-").tempdir()?;
        let logs = logs_folder(dir.path())?;
        let pki = Pki::create(dir.path())?;
        let masters = ["admin", "controllers"].map(|name| (name.to_owned(), "system:masters"));
        let users = masters.into_iter().chain((0..USERS).map(|number| (user_name(number), GROUP)));
        let (mut tokens, mut lines) = (HashMap::new(), String::new());
        for (name, group) in users {
            let token = random()?;
            lines.push_str(&format!("{token},{name},{name},\"{group}\"\n"));
            tokens.insert(name, token);
        }
        let layout = Layout {
            dir: dir.path(),
            logs: &logs,
            pki: &pki,
            tokens: &lines,
            controller_token: &tokens["controllers"],
            audited: !setup.unaudited,
        };
        let real = Real::start(binaries, &layout)?;
        Ok(Self {
            url: real.url().to_owned(),
            ca_der: pki.ca_der,
            ca_file: pki.ca_file,
            tokens,
            free_users: Mutex::new((0..USERS).collect()),
            backend: Mutex::new(Backend::Real(Box::new(real))),
            logs,
            dir,
            setup,
        })
    }

    fn launch_embedded(setup: Setup) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("ringmaster-suites-").tempdir()?;
        let logs = logs_folder(dir.path())?;
        let pki = Pki::create(dir.path())?;
        let masters = ["admin".to_owned()].into_iter().map(|name| (name, "system:masters"));
        let named = masters.chain((0..USERS).map(|number| (user_name(number), GROUP)));
        let (mut tokens, mut users) = (HashMap::new(), Vec::new());
        for (name, group) in named {
            let token = random()?;
            users.push((name.clone(), token.clone(), group.to_owned()));
            tokens.insert(name, token);
        }
        let mut limits = Limits::default();
        limits.history = setup.remembered.unwrap_or(limits.history);
        let embedded = Embedded::start(&users, &real::audit_log(&logs), &pki, limits)?;
        Ok(Self {
            url: embedded.url(),
            ca_der: pki.ca_der,
            ca_file: pki.ca_file,
            tokens,
            free_users: Mutex::new((0..USERS).collect()),
            backend: Mutex::new(Backend::Embedded(Box::new(embedded))),
            logs,
            dir,
            setup,
        })
    }

    /// Waits until it is ready, then applies our CRDs and the shipped role.
    async fn prepare(&self) -> anyhow::Result<()> {
        self.ready().await?;
        self.start_controllers()?;
        let admin = self.admin()?;
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        for file in yaml_files(&manifests.join("crds"))? {
            for crd in admin.apply_yaml(&file).await? {
                served(&admin, &crd).await?;
            }
        }
        let role_file = manifests.join("deploy/clusterrole.yaml");
        let roles = admin.apply_yaml(&role_file).await?;
        let role = roles
            .iter()
            .find(|role| role["metadata"]["name"] == "ringmaster-engine")
            .with_context(|| format!("{}: no ClusterRole ringmaster-engine", role_file.display()))?;
        rbac::bind(&admin, "suites-engine", None, "ringmaster-engine", Subject::Group(GROUP)).await?;
        rbac::effective(&admin, Subject::Group(GROUP), None, &role["rules"]).await?;
        // Where Leases are unless a trial has its own.
        let home = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "ringmaster-system" } });
        admin.apply(&home).await?;
        self.members_in(&admin, "ringmaster-system").await?;
        // The embedded server has no queues for requests: it takes all as they come.
        if self.kind() == ServerKind::Real {
            for mut schema in read_yaml(&manifests.join("deploy/flowschema.yaml"))? {
                schema["spec"]["rules"][0]["subjects"] = json!([{ "kind": "Group", "group": { "name": GROUP } }]);
                schema["spec"]["rules"][0]["resourceRules"][0]["namespaces"] = json!(["*"]);
                admin.apply(&schema).await?;
            }
        }
        self.check()
    }

    /// Lets members keep their Leases in a namespace, by the shipped role.
    ///
    /// # Errors
    /// The API server refuses, or it has no effect in time.
    pub(crate) async fn members_in(&self, admin: &Objects, namespace: &str) -> anyhow::Result<()> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/deploy/role.yaml");
        let objects = read_yaml(&file)?;
        for mut object in objects.iter().cloned() {
            object["metadata"]["namespace"] = namespace.into();
            if object["kind"] == "RoleBinding" {
                object["subjects"] = json!([Subject::Group(GROUP).json()]);
            }
            admin.apply(&object).await?;
        }
        let role = objects.iter().find(|object| object["kind"] == "Role");
        let role = role.with_context(|| format!("{}: no Role", file.display()))?;
        rbac::effective(admin, Subject::Group(GROUP), Some(namespace), &role["rules"]).await
    }

    /// For figures alone: suites never ask.
    pub(crate) fn kind(&self) -> ServerKind {
        match &*self.backend() {
            Backend::Embedded(_) => ServerKind::Embedded,
            Backend::Real(_) => ServerKind::Real,
        }
    }

    fn start_controllers(&self) -> anyhow::Result<()> {
        match &mut *self.backend() {
            // It collects garbage by itself.
            Backend::Embedded(_) => Ok(()),
            Backend::Real(real) => real.start_controllers(),
        }
    }

    /// Ends the real garbage collector, on a server of one's own: it takes children for orphans whose owner's version is
    /// not served at the moment when it looks for that.
    ///
    /// # Errors
    /// The process can't be ended.
    pub(crate) fn stop_collecting(&self) -> anyhow::Result<()> {
        match &mut *self.backend() {
            Backend::Embedded(_) => Ok(()),
            Backend::Real(real) => real.stop_controllers(),
        }
    }

    /// Waits until the API server says that it is ready. Custom resources may answer 429 (`storage is
    /// (re)initializing`) for a moment more.
    ///
    /// # Errors
    /// A process has ended, or it isn't ready in time.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let admin = self.admin()?;
        let ask = async || {
            if let Err(ended) = self.check() {
                return Ok(Err(ended));
            }
            admin.get_path("/readyz").await.map(|_| Ok(()))
        };
        wait::until("the API server is ready", READY, |_| {}, ask).await?
    }

    /// Fails if one of its processes has ended.
    ///
    /// # Errors
    /// Names it, with the last lines of its log.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match &mut *self.backend() {
            Backend::Embedded(_) => Ok(()),
            Backend::Real(real) => real.check(),
        }
    }

    /// The ids of its processes by name; none for the embedded server, which is in this one.
    pub(crate) fn processes(&self) -> Vec<(&'static str, u32)> {
        match &mut *self.backend() {
            Backend::Embedded(_) => Vec::new(),
            Backend::Real(real) => real.processes(),
        }
    }

    /// Stops the API server alone (only in a trial with a server of its own).
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn stop_api(&self, kill: bool) -> anyhow::Result<()> {
        match &mut *self.backend() {
            Backend::Embedded(embedded) => {
                embedded.stop_api();
                Ok(())
            }
            Backend::Real(real) => real.stop_api(kill),
        }
    }

    /// Starts the API server again at the same address; see [`Self::ready`].
    ///
    /// # Errors
    /// It runs, or can't be started.
    pub(crate) fn start_api(&self) -> anyhow::Result<()> {
        match &mut *self.backend() {
            Backend::Embedded(embedded) => embedded.start_api(),
            Backend::Real(real) => real.start_api(),
        }
    }

    /// Makes the API server silent (`true`) or lets it go on: open connections stay, nothing is answered.
    ///
    /// # Errors
    /// It doesn't run, or the signal can't be sent.
    pub(crate) fn freeze_api(&self, frozen: bool) -> anyhow::Result<()> {
        match &mut *self.backend() {
            Backend::Embedded(embedded) => {
                embedded.freeze(frozen);
                Ok(())
            }
            Backend::Real(real) => real.api()?.freeze(frozen),
        }
    }

    /// Stops everything.
    ///
    /// # Errors
    /// A signal can't be sent.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        match &mut *self.backend() {
            Backend::Embedded(embedded) => {
                embedded.stop_api();
                Ok(())
            }
            Backend::Real(real) => real.stop(),
        }
    }

    /// Its address, `https://127.0.0.1:port`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How many events of a kind it remembers, where a trial has set that.
    pub(crate) fn remembered(&self) -> Option<usize> {
        self.setup.remembered
    }

    /// The certificate of its CA, DER.
    pub(crate) fn ca_der(&self) -> &[u8] {
        &self.ca_der
    }

    /// The certificate of its CA, PEM.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The folder for logs of this run.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// The administrator's view; bound to the present runtime.
    pub(crate) fn admin(&self) -> anyhow::Result<Objects> {
        self.objects("admin")
    }

    /// A named user's view; bound to the present runtime.
    ///
    /// # Errors
    /// There is no such user.
    pub(crate) fn objects(&self, user: &str) -> anyhow::Result<Objects> {
        Ok(Objects::new(self.client(Some(self.token(user)?))?))
    }

    /// A client that sends this token, or none.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) fn client(&self, token: Option<&str>) -> anyhow::Result<kube::Client> {
        let mut config = kube::Config::new(self.url.parse()?);
        config.root_cert = Some(vec![self.ca_der.clone()]);
        if let Some(token) = token {
            config.auth_info = serde_json::from_value(json!({ "token": token }))?;
        }
        // A retried request is one that a trial would count twice.
        config.default_retry = false;
        Ok(kube::Client::try_from(config)?)
    }

    /// Text of a kubeconfig for a named user; it refers to [`Self::ca_file`].
    ///
    /// # Errors
    /// There is no such user.
    pub(crate) fn kubeconfig(&self, user: &str, ca_file: &Path) -> anyhow::Result<String> {
        self.kubeconfig_at(&self.url, user, ca_file)
    }

    /// The same that leads to another address, such as a proxy's.
    ///
    /// # Errors
    /// There is no such user.
    pub(crate) fn kubeconfig_at(&self, url: &str, user: &str, ca_file: &Path) -> anyhow::Result<String> {
        Ok(kubeconfig(url, ca_file, user, self.token(user)?))
    }

    /// The present end of the audit log.
    ///
    /// # Errors
    /// The log can't be read.
    pub(crate) fn mark(&self) -> anyhow::Result<Mark> {
        audit::mark(&real::audit_log(&self.logs))
    }

    /// A user's requests since a mark: see [`audit::read`].
    ///
    /// # Errors
    /// The log can't be read.
    pub(crate) fn requests(&self, user: &str, since: Mark) -> anyhow::Result<Vec<AuditEntry>> {
        audit::read(&real::audit_log(&self.logs), user, since)
    }

    /// A user that nobody else has; the one that was given back longest ago comes first.
    ///
    /// # Errors
    /// All [`USERS`] are leased.
    pub(crate) fn lease_user(self: &Arc<Self>) -> anyhow::Result<User> {
        let next = lock(&self.free_users).pop_front();
        let number = next.ok_or_else(|| anyhow!("all {USERS} users are leased: raise USERS in tests/suites/server"))?;
        let name = user_name(number);
        let text = self.kubeconfig(&name, &self.ca_file)?;
        let kubeconfig = pki::write(self.dir.path(), &format!("{name}.kubeconfig"), &text)?;
        Ok(User { name, kubeconfig, number, server: Arc::clone(self) })
    }

    /// A named user's token.
    ///
    /// # Errors
    /// There is no such user.
    pub(crate) fn token(&self, user: &str) -> anyhow::Result<&str> {
        self.tokens.get(user).map(String::as_str).ok_or_else(|| anyhow!("no user {user} at this server"))
    }

    fn backend(&self) -> MutexGuard<'_, Backend> {
        lock(&self.backend)
    }
}

/// A leased user; dropping it gives it back.
pub(crate) struct User {
    /// Its name, `ringmaster-07`.
    pub(crate) name: String,
    /// Its kubeconfig.
    pub(crate) kubeconfig: PathBuf,
    number: usize,
    server: Arc<Server>,
}

impl Drop for User {
    fn drop(&mut self) {
        lock(&self.server.free_users).push_back(self.number);
    }
}

/// The kubectl that belongs to the real server.
///
/// # Errors
/// It isn't on this machine.
pub(crate) fn kubectl() -> anyhow::Result<PathBuf> {
    match real::components()? {
        Built::Found(folder) => Ok(folder.join("kubectl")),
        Built::Unavailable(reason) => Err(anyhow!(reason)),
    }
}

/// Waits until a CRD is established and its kind can be listed in every served version.
///
/// # Errors
/// It isn't within a minute; an object that is no CRD is an error too.
pub(crate) async fn served(admin: &Objects, crd: &Value) -> anyhow::Result<()> {
    ensure!(crd["kind"] == "CustomResourceDefinition", "{} is no CustomResourceDefinition", crd["metadata"]["name"]);
    let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, group, plural) = (text("/metadata/name"), text("/spec/group"), text("/spec/names/plural"));
    let crds = Resource::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", None);
    let ask = async || {
        let now = admin.get(&crds, &name).await?;
        let conditions = &now["status"]["conditions"];
        let is = |kind: &str| {
            conditions.as_array().into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
        };
        ensure!(is("Established"), "conditions {conditions}");
        for version in crd["spec"]["versions"].as_array().into_iter().flatten().filter(|v| v["served"] == true) {
            let api_version = format!("{group}/{}", version["name"].as_str().unwrap_or_default());
            admin.list(&Resource::new(&api_version, "", &plural, None), "limit=1").await?;
        }
        Ok(())
    };
    wait::until(&format!("CRD {name} is served"), READY, |_| {}, ask).await
}

/// A kubeconfig with one context; JSON, which is YAML.
fn kubeconfig(url: &str, ca_file: &Path, user: &str, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "suites",
        "clusters": [{ "name": "suites", "cluster": { "server": url, "certificate-authority": ca_file } }],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "suites", "context": { "cluster": "suites", "user": user } }],
    });
    format!("{config:#}\n")
}

fn user_name(number: usize) -> String {
    format!("ringmaster-{number:02}")
}

/// The folder for this run's logs: below `RINGMASTER_KEEP_LOGS`, or in the folder that goes at the end.
fn logs_folder(dir: &Path) -> anyhow::Result<PathBuf> {
    static RUN: AtomicUsize = AtomicUsize::new(0);
    let logs = match std::env::var_os("RINGMASTER_KEEP_LOGS").filter(|value| !value.is_empty()) {
        Some(keep) => {
            let run = RUN.fetch_add(1, Ordering::Relaxed);
            std::path::absolute(keep)?.join(format!("{}-{run}", std::process::id()))
        }
        None => dir.join("logs"),
    };
    std::fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    Ok(logs)
}

/// The YAML files of a folder in order of name, without `kustomization.yaml`.
fn yaml_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "yaml")
            && path.file_name().is_some_and(|name| name != "kustomization.yaml")
    });
    files.sort();
    ensure!(!files.is_empty(), "{} holds no YAML file: run `ringmaster crds`", dir.display());
    Ok(files)
}

/// A secret that nobody can guess, from the kernel.
fn random() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(std::fs::read_to_string(path).context(path)?.trim().to_owned())
}

/// A lock whose holder may have panicked in a failed trial; the data stays whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
