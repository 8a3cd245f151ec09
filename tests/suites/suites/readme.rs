//! The README's first five minutes, block by block, as they stand in the file.
//!
//! Never edits a block: what a reader copies is what runs. Between blocks it looks whether what the text says came true.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::cluster::Context;
use crate::objects::Resource;
use crate::server::write_private;
use crate::trial::Case;

/// A block may build the release binary.
const BLOCK: Duration = Duration::from_secs(1500);
/// What the README's processes listen on.
const PORTS: [u16; 3] = [8080, 8081, 9999];
const SOON: Duration = Duration::from_secs(30);
const COLLECTED: Duration = Duration::from_secs(90);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("readme", "the_first_five_minutes", first_five_minutes)
            .own_server()
            .timeout(BLOCK * 2)
            .lacks_embedded("server-side apply"),
    ]
}

/// The `sh` blocks under the heading.
fn blocks(readme: &str, heading: &str) -> Vec<String> {
    let section = readme.split("\n## ").find(|section| section.starts_with(heading)).unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    blocks.filter_map(|block| block.split_once("```")).map(|(block, _)| block.to_owned()).collect()
}

async fn first_five_minutes(ctx: Context) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md"))?;
    let blocks = blocks(&readme, "First five minutes");
    let [kinds, processes, objects, look, change] = blocks.as_slice() else {
        anyhow::bail!("the README has {} blocks under its heading, expected 5", blocks.len());
    };
    for port in PORTS {
        std::net::TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("the README uses port {port}; end what listens there"))?;
    }
    // Only a person's kubeconfig: the README's reader is the administrator of a cluster of their own.
    let text = ctx.server.kubeconfig("admin", ctx.server.ca_file())?;
    let kubeconfig = write_private(ctx.server.logs(), "readme.kubeconfig", &text)?;

    let assets = Command::new(root.join("tests/components/build")).output()?;
    let assets = String::from_utf8(assets.stdout)?.trim().to_owned();
    let path = format!("{assets}:{}", std::env::var("PATH")?);
    let log = ctx.log_file("readme");
    // One shell for all blocks, as a reader's terminal; it says when each block is done.
    let mut script = String::from("set -e\n");
    for (index, block) in [kinds, processes, objects, look, change].into_iter().enumerate() {
        script.push_str(&format!("{block}\necho README-BLOCK-{index}-DONE\nread -r _\n"));
    }
    let output = std::fs::File::create(&log)?;
    let mut shell = Command::new("bash")
        .args(["-c", &script])
        .current_dir(root)
        .env("KUBECONFIG", &kubeconfig)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()?;
    let group = Group(shell.id());
    let mut steps = shell.stdin.take().context("no stdin")?;
    let mut done = async |index: usize| {
        ctx.wait(&format!("README block {index} is done"), BLOCK, async || {
            let text = std::fs::read_to_string(&log)?;
            if let Some(code) = shell.try_wait()? {
                return Ok(Err(anyhow::anyhow!("the README's shell ended with {code}:\n{text}")));
            }
            ensure!(text.contains(&format!("README-BLOCK-{index}-DONE")), "{text}");
            Ok(Ok(()))
        })
        .await?
    };
    let mut next = || std::io::Write::write_all(&mut steps, b"\n");

    for index in 0..4 {
        done(index).await?;
        next()?;
    }
    let websites = Resource::new("example.ringmaster.dev/v1", "Website", "websites", Some("default"));
    let configmaps = Resource::new("v1", "ConfigMap", "configmaps", Some("default"));
    let services = Resource::new("v1", "Service", "services", Some("default"));
    let deployments = Resource::new("apps/v1", "Deployment", "deployments", Some("default"));
    let text = std::fs::read_to_string(&log)?;
    ensure!(text.contains("configmap/museum") && text.contains("deployment.apps/garden"), "{text}");
    done(4).await?;
    ctx.wait("the changed title arrives, and the deleted child is back", SOON, async || {
        let page = ctx.admin.get(&configmaps, "museum").await?["data"]["index.html"].to_string();
        ensure!(page.contains("Open on Sundays"), "{page}");
        let website = ctx.admin.get(&websites, "museum").await?;
        ensure!(website["status"]["phase"] == "Ready" && website["status"]["observedGeneration"] == 2, "{website}");
        Ok(())
    })
    .await?;
    ctx.wait("the deleted Website's children are gone", COLLECTED, async || {
        for kind in [&configmaps, &services, &deployments] {
            ensure!(ctx.admin.find(kind, "library").await?.is_none(), "{} library is still there", kind.kind);
        }
        Ok(())
    })
    .await?;
    drop(group);
    Ok(())
}

/// Ends what the blocks started in the background.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0);
        for signal in ["TERM", "KILL"] {
            let _ = Command::new("kill").args(["-s", signal, "--", &group]).status();
            let gone = || Command::new("kill").args(["-0", "--", &group]).stderr(Stdio::null()).status();
            let mut left = 100;
            while left > 0 && gone().is_ok_and(|status| status.success()) {
                // Bounded: at most five seconds for each signal.
                std::thread::sleep(Duration::from_millis(50));
                left -= 1;
            }
        }
    }
}
