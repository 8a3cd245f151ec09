//! TLS to a webhook's replicas: authorities in a ConfigMap and our certificate in a Secret, both rotated under load.
//!
//! Never lets a connection carry two calls: each call makes a handshake with what is valid then.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::replicas::SERVICE;
use crate::replicas::calls::{now, within};
use crate::suites::scene::condition;
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

/// A certificate and its key, in PEM.
fn signed(by: &Authority, name: &str, usage: ExtendedKeyUsagePurpose) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.extended_key_usages = vec![usage];
    Ok((params.signed_by(&key, by)?.pem(), key.serialize_pem()))
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
fn show(folder: &Path, name: &str, by: &Authorities) -> anyhow::Result<()> {
    let (chain, key) = signed(&by.theirs, name, ExtendedKeyUsagePurpose::ServerAuth)?;
    write(folder, "tls.pem", &format!("{chain}{key}"))
}

/// The replicas trust these.
fn trust(folder: &Path, authorities: &[&Authorities]) -> anyhow::Result<()> {
    let all: String = authorities.iter().map(|one| one.ours.pem()).collect();
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
    async fn trust(&self, authorities: &[&Authorities]) -> anyhow::Result<()> {
        let all: String = authorities.iter().map(|one| one.theirs.pem()).collect();
        let metadata = json!({ "name": "authorities", "namespace": self.ctx.namespace });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "ca.crt": all } });
        self.ctx.admin.apply(&map).await.map(drop)
    }

    async fn show(&self, by: &Authorities) -> anyhow::Result<()> {
        let (chain, key) = signed(&by.ours, "ringmaster", ExtendedKeyUsagePurpose::ClientAuth)?;
        let metadata = json!({ "name": "certificate", "namespace": self.ctx.namespace });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": chain, "tls.key": key } });
        self.ctx.admin.apply(&secret).await.map(drop)
    }
}

pub(super) async fn rotated(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 200;
    let mut stage = Stage::new(ctx, 2).await?;
    let folder = tempfile::tempdir()?;
    let name = format!("{SERVICE}.{}.svc", stage.ctx.namespace);
    let mut present = Authorities::new()?;
    show(folder.path(), &name, &present)?;
    trust(folder.path(), &[&present])?;
    let tls = format!("tls={}", folder.path().display());
    stage.start(&[0, 1], &[&tls, "close=1"]).await?;
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
    declared.trust(&[&present]).await?;
    declared.show(&present).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    stage.create(PARENTS).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let (from, mut turn) = (now(), tokio::time::interval(PERIOD));
    // Never two sooner after each other, however busy the machine is.
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let before = stage.scrape()?;
    let mut previous = Authorities::new()?;
    for _ in 0..ROTATIONS {
        turn.tick().await;
        let next = Authorities::new()?;
        // First everybody trusts the next ones too, then they are shown. Who is trusted stays so for a period after it was
        // shown last: whoever shows it hears of the next one a little later.
        trust(folder.path(), &[&previous, &present, &next])?;
        declared.trust(&[&previous, &present, &next]).await?;
        tokio::time::sleep(PERIOD / 2).await;
        show(folder.path(), &name, &next)?;
        declared.show(&next).await?;
        previous = std::mem::replace(&mut present, next);
    }
    turn.tick().await;
    let calls = within(&stage.replicas.calls()?, from, now());
    let seconds = usize::try_from(ROTATIONS)?;
    let failed = |scrape: &crate::scrape::Scrape| {
        let all = scrape.sum("ringmaster_hook_requests_total", &[]);
        all - scrape.sum("ringmaster_hook_requests_total", &[("code", "200")])
    };
    let failures = failed(&stage.scrape()?) - failed(&before);
    println!(
        "webhooks certificates: {ROTATIONS} rotations, {} calls by as many handshakes, {failures} failed",
        calls.len()
    );
    ensure!(calls.len() >= 100 * seconds, "{} calls", calls.len());
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
