//! The configuration of `ringmaster run`: flags, `RINGMASTER_*` variables and a file become one checked [`Settings`].
//!
//! For each name the flag wins over the variable, the variable over the file, the file over the default. Nothing is
//! read after start, nothing is logged here (logging is configured by it), and no value reaches the engine unchecked.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ringmaster_core::controller::Apply;
use ringmaster_core::key::ObjectKey;
use ringmaster_core::selector::Selector;

use crate::telemetry;
use source::{Given, Layer, Text};

mod flags;
mod membership;
mod ring_admission;
mod source;
mod value;

#[cfg(test)]
mod tests;

pub use flags::{ENV_PREFIX, Flags, normalize_args};
pub use membership::{MAX_MEMBER_NAME_CHARS, Membership};
pub use ring_admission::RingAdmission;

/// Largest configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Most entries of `--hook-resolve`.
pub const MAX_HOOK_RESOLVES: usize = 256;
/// Most workers of one process.
pub const MAX_WORKERS: usize = 4096;
/// Most events per second that one object may be allowed to cause.
pub const MAX_EVENTS_QPS: f64 = 1000.0;
/// Most events that one object may cause at once.
pub const MAX_EVENTS_BURST: u32 = 10_000;

/// Workers of one process, unless set. They wait for webhooks most of the time.
const DEFAULT_WORKERS: usize = 64;
/// Metacontroller's default: one event in five minutes.
const DEFAULT_EVENTS_QPS: f64 = 1.0 / 300.0;
/// Metacontroller's default.
const DEFAULT_EVENTS_BURST: u32 = 25;
/// Metacontroller's default.
const DEFAULT_DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);
/// Metacontroller's default.
const DEFAULT_CACHE_FLUSH_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// Metacontroller's default.
const DEFAULT_METRICS_ADDRESS: &str = ":9999";
/// Metacontroller's default.
const DEFAULT_HEALTH_ADDRESS: &str = ":8081";
/// Metacontroller's default.
const DEFAULT_FIELD_MANAGER: &str = "metacontroller";
/// Range of `--discovery-interval`.
const DISCOVERY_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// Range of `--cache-flush-interval`; zero is for never.
const CACHE_FLUSH_INTERVALS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 24 * 3600);
/// Shortest `--cache-flush-interval` that isn't never.
const MIN_CACHE_FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// What can be wrong with the configuration. All are the user's to put right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value can't be used.
    #[error("{origin} is {value:?}: {fix}")]
    Value {
        /// The flag, variable, or key and file that the value came from.
        origin: String,
        /// The value, or its beginning.
        value: String,
        /// What is wrong, or what to give instead.
        fix: String,
    },
    /// A key of the file has no value, or a list or map where one value belongs.
    #[error("{origin} must be one value: {fix}")]
    Shape {
        /// The key and its file.
        origin: String,
        /// What to write instead.
        fix: &'static str,
    },
    /// The file has a key that doesn't exist.
    #[error("{key:?} in {} is not a setting: {fix}", path.display())]
    UnknownKey {
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
        /// What to write instead.
        fix: String,
    },
    /// The file can't be read.
    #[error("{origin}: cannot read {}", path.display())]
    Read {
        /// The flag or variable that names the file.
        origin: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is neither YAML nor TOML by its name.
    #[error("{origin}: {} must have a name that ends in .yaml, .yml or .toml", path.display())]
    Format {
        /// The flag or variable that names the file.
        origin: String,
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("{origin}: {} is larger than {MAX_FILE_BYTES} bytes: is it the right file?", path.display())]
    Size {
        /// The flag or variable that names the file.
        origin: String,
        /// The file.
        path: PathBuf,
    },
    /// The file can't be parsed.
    #[error("{origin}: {} cannot be parsed", path.display())]
    Parse {
        /// The flag or variable that names the file.
        origin: String,
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<::config::ConfigError>,
    },
    /// The times of a Lease don't fit together; each is well by itself.
    #[error(transparent)]
    Lease(#[from] ringmaster_core::lease::Error),
    /// The sources can't be put together.
    #[error("cannot merge flags, environment and file")]
    Merge(#[source] Box<::config::ConfigError>),
}

impl From<::config::ConfigError> for Error {
    fn from(error: ::config::ConfigError) -> Error {
        Error::Merge(Box::new(error))
    }
}

/// Where a process runs: it decides some defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a pod.
    Pod,
    /// On a machine outside of the cluster that it serves.
    Machine,
    /// Together with its API server, on one person's machine: metrics at a free port of loopback, no health.
    Dev,
}

impl Place {
    /// In a pod, or on a machine: as the kubelet's variable tells.
    #[must_use]
    pub fn of_process() -> Self {
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() { Self::Pod } else { Self::Machine }
    }

    fn metrics_address(self) -> &'static str {
        match self {
            Self::Pod | Self::Machine => DEFAULT_METRICS_ADDRESS,
            Self::Dev => "127.0.0.1:0",
        }
    }

    fn health_address(self) -> &'static str {
        match self {
            Self::Pod | Self::Machine => DEFAULT_HEALTH_ADDRESS,
            Self::Dev => "0",
        }
    }
}

/// The whole configuration of a process, checked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Kubeconfig file; `None` for the pod's service account or the usual places.
    pub kubeconfig: Option<PathBuf>,
    /// Syncs at once in this process: 1 to [`MAX_WORKERS`].
    pub workers: usize,
    /// Time between two discoveries of the served kinds.
    pub discovery_interval: Duration,
    /// Time between two deliveries of each parent at the lowest priority; `None` for never.
    pub cache_flush_interval: Option<Duration>,
    /// Labels of the controllers that are run; `None` for all.
    pub target_label_selector: Option<Selector>,
    /// What this member is called, and its Lease.
    pub membership: Membership,
    /// Metacontroller's leader Lease: its controllers wait while that is renewed. Without a namespace, it may be in any.
    pub metacontroller_lease: ObjectKey,
    /// Where metrics are served; `None` for nowhere. Port 0 takes a free one.
    pub metrics_address: Option<SocketAddr>,
    /// Whether metrics are served at a free port of loopback if that one is busy: outside a pod, where no address was
    /// given, so that several members can be started side by side.
    pub metrics_falls_back: bool,
    /// The same for health.
    pub health_falls_back: bool,
    /// Where health is served; `None` for nowhere. Port 0 takes a free one.
    pub health_probe_address: Option<SocketAddr>,
    /// Events per second that one object may cause in the long run: above 0, at most [`MAX_EVENTS_QPS`].
    pub events_qps: f64,
    /// Events that one object may cause at once: 1 to [`MAX_EVENTS_BURST`].
    pub events_burst: u32,
    /// Whether hooks at loopback addresses may be called.
    pub hook_allow_loopback: bool,
    /// Where to connect for certain hosts: at most [`MAX_HOOK_RESOLVES`], each host and port once.
    pub hook_resolve: Vec<HookResolve>,
    /// The admission webhook of external rings; `None` for none.
    pub ring_admission: Option<RingAdmission>,
    /// How children of Metacontroller's controllers are written.
    pub apply: Apply,
    /// How a line of the log looks.
    pub log_format: telemetry::Format,
    /// Directives that [`telemetry::filter`] accepts.
    pub log_level: String,
    /// What was accepted without effect: to be logged as warnings, each once, when logging is up.
    pub notices: Vec<String>,
    /// Names of `RINGMASTER_*` variables that mean nothing here: to be logged at debug. Kubernetes sets such ones in
    /// every pod beside a Service of our name.
    pub unknown_variables: Vec<String>,
}

/// An entry of `--hook-resolve`: calls for `host:port` connect to `address`. The URL, the `Host` header and the
/// certificate's name stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookResolve {
    /// Lower-case DNS name, or IP address without brackets.
    pub host: String,
    /// Port of the URL; not 0.
    pub port: u16,
    /// Where to connect.
    pub address: SocketAddr,
}

impl Settings {
    /// Puts the sources together and checks every value. `env` is the process environment as [`environment`] gives it.
    ///
    /// # Errors
    /// At the first value, key or file that can't be used, with its origin and the fix.
    pub fn load(flags: Flags, env: impl Iterator<Item = (String, String)>, place: Place) -> Result<Settings, Error> {
        let names = flags::names();
        let mut given_flags = source::from_flags(&flags)?;
        let (mut given_env, unknown_variables) = source::from_env(env, &names);
        let named = [&mut given_env, &mut given_flags].map(|given| given.remove(flags::CONFIG));
        let mut builder = ::config::Config::builder();
        // The later one counts: the flag.
        if let Some(file) = named.into_iter().flatten().next_back() {
            builder = builder.add_source(Layer(source::from_file(&file, &names)?));
        }
        let merged = builder.add_source(Layer(given_env)).add_source(Layer(given_flags)).build()?;
        let mut given = Given::new(::config::Source::collect(&merged)?);
        let settings = given.settings(place)?;
        Ok(Settings { notices: given.notices, unknown_variables, ..settings })
    }
}

/// The environment's `RINGMASTER_*` variables. What isn't UTF-8 is replaced, so that it fails as a bad value.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
}

/// How each value is checked.
impl Given {
    fn settings(&mut self, place: Place) -> Result<Settings, Error> {
        self.ignored()?;
        let given = |name: &str| self.is_given(name);
        let [metrics_falls_back, health_falls_back] =
            ["metrics-address", "health-probe-bind-address"].map(|name| place == Place::Machine && !given(name));
        let (metrics_address, health_probe_address) = self.addresses(place)?;
        let (log_format, log_level) = self.logging(place)?;
        let membership = self.membership(place)?;
        let target_label_selector = self.selector()?;
        let is_part = target_label_selector.is_some();
        let servers = [metrics_address, health_probe_address];
        let ring_admission = self.ring_admission(&membership.namespace, is_part, servers)?;
        Ok(Settings {
            kubeconfig: self.filled("kubeconfig")?.map(|file| PathBuf::from(file.text)),
            workers: self.or("workers", DEFAULT_WORKERS, |text| value::number(text, &(1..=MAX_WORKERS)))?,
            discovery_interval: self.or("discovery-interval", DEFAULT_DISCOVERY_INTERVAL, |text| {
                value::duration(text, &DISCOVERY_INTERVALS)
            })?,
            cache_flush_interval: self.cache_flush_interval()?,
            target_label_selector,
            metacontroller_lease: self.metacontroller_lease()?,
            membership,
            metrics_address,
            metrics_falls_back,
            health_falls_back,
            health_probe_address,
            events_qps: self.or("events-qps", DEFAULT_EVENTS_QPS, |text| value::rate(text, MAX_EVENTS_QPS))?,
            events_burst: self
                .or("events-burst", DEFAULT_EVENTS_BURST, |text| value::number(text, &(1..=MAX_EVENTS_BURST)))?,
            hook_allow_loopback: self.or("hook-allow-loopback", place != Place::Pod, value::boolean)?,
            hook_resolve: self.hook_resolve()?,
            ring_admission,
            apply: self.apply()?,
            log_format,
            log_level,
            notices: Vec::new(),
            unknown_variables: Vec::new(),
        })
    }

    fn cache_flush_interval(&mut self) -> Result<Option<Duration>, Error> {
        let interval = self.or("cache-flush-interval", DEFAULT_CACHE_FLUSH_INTERVAL, |text| {
            let interval = value::duration(text, &CACHE_FLUSH_INTERVALS)?;
            if !interval.is_zero() && interval < MIN_CACHE_FLUSH_INTERVAL {
                return Err("give at least 1s, or 0 for never".to_owned());
            }
            Ok(interval)
        })?;
        Ok(Some(interval).filter(|interval| !interval.is_zero()))
    }

    fn selector(&mut self) -> Result<Option<Selector>, Error> {
        let Some(given) = self.filled("target-label-selector")? else { return Ok(None) };
        Selector::parse(&given.text).map(Some).map_err(|error| given.error(error.to_string()))
    }

    fn addresses(&mut self, place: Place) -> Result<(Option<SocketAddr>, Option<SocketAddr>), Error> {
        let mut address = |name, default: &str| {
            let given = self.one(name)?;
            let given = given.unwrap_or_else(|| Text { origin: format!("--{name}"), text: default.to_owned() });
            let address = value::address(&given.text).map_err(|fix| given.error(fix))?;
            Ok::<_, Error>((address, given))
        };
        let (metrics, metrics_given) = address("metrics-address", place.metrics_address())?;
        let (health, health_given) = address("health-probe-bind-address", place.health_address())?;
        if let (Some(a), Some(b)) = (metrics, health)
            && value::clash(a, b)
        {
            let other = metrics_given.origin;
            return Err(health_given.error(format!("{other} has the same port; give two, or turn one off with 0")));
        }
        Ok((metrics, health))
    }

    fn logging(&mut self, place: Place) -> Result<(telemetry::Format, String), Error> {
        use telemetry::Format;

        let devel = self.or("zap-devel", false, value::boolean)?;
        let encoder = self.parsed("zap-encoder", |text| match text {
            "console" => Ok(Format::Pretty),
            "json" => Ok(Format::Json),
            _ => Err("give console or json".to_owned()),
        })?;
        let format = self.parsed("log-format", |text| match text {
            "pretty" => Ok(Format::Pretty),
            "json" => Ok(Format::Json),
            _ => Err("give pretty or json".to_owned()),
        })?;
        let zap_level = self.parsed("zap-log-level", value::zap_level)?;
        let level = self.parsed("log-level", |text| match telemetry::filter(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(error.to_string()),
        })?;
        let default = if place == Place::Pod && !devel { Format::Json } else { Format::Pretty };
        let default_level = zap_level.unwrap_or(if devel { "debug" } else { "info" });
        Ok((
            format.or(encoder).unwrap_or(default),
            level.filter(|level| !level.is_empty()).unwrap_or_else(|| default_level.to_owned()),
        ))
    }

    fn hook_resolve(&mut self) -> Result<Vec<HookResolve>, Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        for given in self.many("hook-resolve")? {
            let entry = value::hook_resolve(&given.text).map_err(|fix| given.error(fix))?;
            if !seen.insert((entry.host.clone(), entry.port)) {
                return Err(given.error("this host and port have an entry already; remove one"));
            }
            if entries.len() == MAX_HOOK_RESOLVES {
                return Err(given.error(format!("give at most {MAX_HOOK_RESOLVES} entries")));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// How children of Metacontroller's controllers are written.
    fn apply(&mut self) -> Result<Apply, Error> {
        let is_server_side = self.or("apply-strategy", false, |text| match text {
            "dynamic-apply" => Ok(false),
            "server-side-apply" => Ok(true),
            _ => Err("give dynamic-apply or server-side-apply".to_owned()),
        })?;
        let Some(given) = self.one("apply-strategy-ssa-field-manager")? else {
            let manager = DEFAULT_FIELD_MANAGER.into();
            return Ok(if is_server_side { Apply::ServerSide { manager } } else { Apply::Merge });
        };
        let manager = value::field_manager(&given.text).map_err(|fix| given.error(fix))?;
        if is_server_side {
            return Ok(Apply::ServerSide { manager: manager.into() });
        }
        self.notices.push(format!("{given}: it has no effect with dynamic-apply"));
        Ok(Apply::Merge)
    }

    /// Takes out what is accepted for Metacontroller's sake only, with a notice for each that asks for something.
    fn ignored(&mut self) -> Result<(), Error> {
        const ONE_OWNER: &str =
            "members share the work and need no leader; --lease-duration and its like set the Leases";
        const NO_LIMIT: &str = "requests to the API server have no client-side limit";
        const NAMES: [(&str, &str); 4] = [
            ("leader-election", ONE_OWNER),
            ("leader-election-resource-lock", ONE_OWNER),
            ("zap-stacktrace-level", "the log has no stack traces"),
            ("zap-time-encoding", "times in the log are in RFC 3339"),
        ];
        for (name, why) in NAMES {
            let Some(given) = self.filled(name)? else { continue };
            if name == "leader-election" {
                value::boolean(&given.text).map_err(|fix| given.error(fix))?;
            }
            self.notices.push(format!("{given}, which is ignored: {why}"));
        }
        for name in ["client-go-qps", "client-go-burst"] {
            let Some(given) = self.one(name)? else { continue };
            if value::finite(&given.text).map_err(|fix| given.error(fix))? > 0.0 {
                self.notices.push(format!("{given}, which is ignored: {NO_LIMIT}"));
            }
        }
        if let Some(given) = self.filled("pprof-address")?.filter(|given| given.text != "0") {
            self.notices.push(format!("{given}, which is ignored: there is no profiling server"));
        }
        Ok(())
    }
}
