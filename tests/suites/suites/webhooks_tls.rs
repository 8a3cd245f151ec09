//! TLS to a webhook's replicas: authorities in a ConfigMap and our certificate in a Secret, both rotated under load; with a
//! handshake for each call, with connections that are kept, and by HTTP/2.
//!
//! Never takes it for granted that the new certificates are used, nor that connections are kept: replicas note each
//! handshake.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::replicas::SERVICE;
use crate::replicas::calls::{Handshake, now, within};
use crate::replicas::serve::fingerprint;
use crate::suites::scene::{SOON, condition};
use crate::suites::webhooks::Stage;

/// How often there are new certificates.
const PERIOD: Duration = Duration::from_secs(1);
/// How many times.
const ROTATIONS: u32 = 30;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> anyhow::Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate and its key, in PEM, and its fingerprint.
fn signed(by: &Authority, name: &str, usage: ExtendedKeyUsagePurpose) -> anyhow::Result<(String, String, u64)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, by)?;
    Ok((certificate.pem(), key.serialize_pem(), fingerprint(certificate.der())))
}

/// The authorities of webhooks, and of those who call them.
struct Authorities {
    theirs: Authority,
    ours: Authority,
}

impl Authorities {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { theirs: authority()?, ours: authority()? })
    }
}

/// The files of the replicas' side, each written whole or not at all.
fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let beside = folder.join(format!("{name}.new"));
    fs::write(&beside, text)?;
    Ok(fs::rename(beside, folder.join(name))?)
}

/// The replicas show a certificate of `by`. The key goes with the chain in one file: a reader sees both or neither.
fn show(folder: &Path, name: &str, by: &Authorities) -> anyhow::Result<u64> {
    let (chain, key, fingerprint) = signed(&by.theirs, name, ExtendedKeyUsagePurpose::ServerAuth)?;
    write(folder, "tls.pem", &format!("{chain}{key}"))?;
    Ok(fingerprint)
}

/// The replicas trust these.
fn trust<'a>(folder: &Path, authorities: impl IntoIterator<Item = &'a Authorities>) -> anyhow::Result<()> {
    let all: String = authorities.into_iter().map(|one| one.ours.pem()).collect();
    write(folder, "ca.crt", &all)
}

/// Rights to read one Secret and one ConfigMap, and nothing else of their kinds.
fn named_rights() -> Value {
    let rule = |resource: &str, name: &str| json!({ "apiGroups": [""], "resources": [resource], "resourceNames": [name], "verbs": ["get", "list", "watch"] });
    json!([rule("secrets", "certificate"), rule("configmaps", "authorities")])
}

/// What Ringmaster trusts, and what it shows.
struct Declared<'a> {
    ctx: &'a Context,
}

impl Declared<'_> {
    async fn trust<'a>(&self, authorities: impl IntoIterator<Item = &'a Authorities>) -> anyhow::Result<()> {
        let all: String = authorities.into_iter().map(|one| one.theirs.pem()).collect();
        let metadata = json!({ "name": "authorities", "namespace": self.ctx.namespace });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "ca.crt": all } });
        self.ctx.admin.apply(&map).await.map(drop)
    }

    async fn show(&self, by: &Authorities) -> anyhow::Result<u64> {
        let (chain, key, fingerprint) = signed(&by.ours, "ringmaster", ExtendedKeyUsagePurpose::ClientAuth)?;
        let metadata = json!({ "name": "certificate", "namespace": self.ctx.namespace });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": chain, "tls.key": key } });
        self.ctx.admin.apply(&secret).await?;
        Ok(fingerprint)
    }
}

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    /// Each call has its own.
    Anew,
    /// They carry one call after the other, by HTTP/1.1.
    Kept,
    /// They carry many calls at once, by HTTP/2.
    Shared,
}

impl Connections {
    /// Whether so many handshakes for so many calls are what was asked for.
    fn check(self, handshakes: &[Handshake], calls: usize) -> anyhow::Result<()> {
        let made = handshakes.len();
        let protocol = if self == Self::Shared { "h2" } else { "-" };
        let other = handshakes.iter().find(|handshake| handshake.protocol != protocol);
        ensure!(other.is_none(), "{other:?} instead of {protocol}");
        match self {
            Self::Anew => ensure!(made >= calls, "{made} handshakes for {calls} calls"),
            // Each change of a certificate or an authority ends them all.
            Self::Kept | Self::Shared => ensure!(made * 4 <= calls, "{made} handshakes for {calls} calls"),
        }
        Ok(())
    }
}

/// Each call makes a handshake with what is valid then.
pub(super) async fn anew(ctx: Context) -> anyhow::Result<()> {
    rotated(ctx, Connections::Anew).await
}

/// As most clients do.
pub(super) async fn kept(ctx: Context) -> anyhow::Result<()> {
    rotated(ctx, Connections::Kept).await
}

/// Where the webhook offers it.
pub(super) async fn shared(ctx: Context) -> anyhow::Result<()> {
    rotated(ctx, Connections::Shared).await
}

async fn rotated(ctx: Context, connections: Connections) -> anyhow::Result<()> {
    const PARENTS: usize = 200;
    // Calls that come together make a connection each, as long as there is none: so many at most.
    let mut stage = Stage::with(ctx, 2, |_, _| vec!["--workers=8".to_owned()]).await?;
    let folder = tempfile::tempdir()?;
    let name = format!("{SERVICE}.{}.svc", stage.ctx.namespace);
    // Those of the last rotation, of now, and of the next one.
    let mut authorities = VecDeque::from([Authorities::new()?, Authorities::new()?, Authorities::new()?]);
    show(folder.path(), &name, &authorities[1])?;
    trust(folder.path(), &authorities)?;
    let tls = format!("tls={}", folder.path().display());
    let more: &[&str] = match connections {
        Connections::Anew => &["close=1"],
        Connections::Kept => &[],
        Connections::Shared => &["h2=1"],
    };
    stage.start(&[0, 1], &[&[tls.as_str()], more].concat()).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    let reference = |name: &str| json!({ "name": name, "namespace": stage.ctx.namespace });
    let service = json!({ "name": SERVICE, "namespace": stage.ctx.namespace, "port": 443, "protocol": "https" });
    let webhook = json!({
        "service": service,
        "caBundle": { "configMapRef": reference("authorities") },
        "clientTLS": { "secretRef": reference("certificate") },
    });
    // What is missing, and what can't be read, is told.
    stage.controller(&json!({ "resyncPeriodSeconds": 1 }), &webhook).await?;
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "BadCredentials"]).await?;
    ensure!(text.contains("grant get, list and watch on configmaps in the namespace"), "{text}");
    stage.ctx.grant(&named_rights()).await?;
    let declared = Declared { ctx: &stage.ctx };
    declared.trust(&authorities).await?;
    declared.show(&authorities[1]).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    // Evenly, as their resyncs will be.
    stage.create_at(PARENTS, 200).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let (from, mut turn) = (now(), tokio::time::interval(PERIOD));
    // Never two sooner after each other, however busy the machine is.
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let before = stage.scrape()?;
    for _ in 0..ROTATIONS {
        turn.tick().await;
        // Everybody trusts the next ones a rotation before they are shown, and the last ones for one after that.
        authorities.push_back(Authorities::new()?);
        trust(folder.path(), &authorities)?;
        declared.trust(&authorities).await?;
        let theirs = show(folder.path(), &name, &authorities[2])?;
        let ours = declared.show(&authorities[2]).await?;
        authorities.pop_front();
        let used = async || {
            let made = stage.replicas.handshakes()?;
            let new = made.iter().filter(|made| (made.ours, made.theirs) == (theirs, ours));
            let replicas: HashSet<usize> = new.map(|made| made.replica).collect();
            ensure!(replicas.len() == 2, "{replicas:?}");
            Ok(())
        };
        stage.ctx.wait("both replicas are called with the new certificates", SOON, used).await?;
    }
    turn.tick().await;
    let calls = within(&stage.replicas.calls()?, from, now());
    let rotations = usize::try_from(ROTATIONS)?;
    let failed = |scrape: &crate::scrape::Scrape| {
        let all = scrape.sum("ringmaster_hook_requests_total", &[]);
        all - scrape.sum("ringmaster_hook_requests_total", &[("code", "200")])
    };
    let (took, failures) = (now() - from, failed(&stage.scrape()?) - failed(&before));
    let handshakes: Vec<_> =
        stage.replicas.handshakes()?.into_iter().filter(|handshake| handshake.at >= from).collect();
    let distinct = |of: fn(&Handshake) -> u64| handshakes.iter().map(of).collect::<HashSet<_>>().len();
    let (ours, theirs) = (distinct(|handshake| handshake.theirs), distinct(|handshake| handshake.ours));
    println!(
        "webhooks certificates: {ROTATIONS} rotations in {took:?}, connections {connections:?}: {} calls, {} handshakes with {ours} \
         certificates of ours and {theirs} of theirs, {failures} failed",
        calls.len(),
        handshakes.len(),
    );
    connections.check(&handshakes, calls.len())?;
    ensure!(ours >= rotations && theirs >= rotations, "{ours} and {theirs} certificates in {ROTATIONS} rotations");
    ensure!(calls.len() >= 50 * rotations, "{} calls", calls.len());
    ensure!(failures == 0.0 && calls.iter().all(|call| call.ended.is_none_or(|(_, code)| code == 200)), "{failures}");
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;

    // Something that is no certificate is told, and calls go on.
    let metadata = json!({ "name": "authorities", "namespace": stage.ctx.namespace });
    let map =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "ca.crt": "nonsense" } });
    stage.ctx.admin.apply(&map).await?;
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "BadCredentials"]).await?;
    ensure!(text.contains("caBundle") && text.contains("calls go on"), "{text}");
    stage.all_called(PARENTS, now()).await?;
    ensure!(failed(&stage.scrape()?) - failed(&before) == 0.0, "calls failed");
    Ok(())
}
