//! `trireme snapshot save`: from whichever master answers into a file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use trireme_apiserver::join::wire::SNAPSHOT_PATH;
use trireme_raftstore::{BackupFile, BackupInfo};

use super::{size, time};
use crate::admin::Connection;

/// How long a master may send nothing.
const SILENCE: Duration = Duration::from_secs(60);

pub async fn run(connection: &Connection, path: &Path, local: bool) -> anyhow::Result<()> {
    let (client, _) = connection.connect()?;
    // Tried first: a place that cannot be written to should not cost the masters anything.
    let file = BackupFile::create(path)?;
    let query = if local { "?local=true" } else { "" };
    let request = Request::get(format!("{SNAPSHOT_PATH}{query}")).body(Body::empty())?;
    let answer = client.send(request).await.context("no master answers")?;
    let code = answer.status();
    if !code.is_success() {
        let body = answer.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let status: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let why = status.as_ref().and_then(|s| s["message"].as_str()).unwrap_or("no reason was given");
        let hint = match (code.as_u16(), local) {
            (503, false) => "; with --local it is taken from what the master that answers has, possibly old",
            _ => "",
        };
        bail!("{why} ({code}){hint}");
    }
    let info = receive(answer.into_body(), file).await?;
    println!(
        "snapshot saved at {}: {} keys, {}, revision {}, hash {:08x}, taken by {} at {}",
        path.display(),
        info.summary.keys,
        size(info.file_bytes),
        info.header.revision,
        info.summary.hash,
        info.header.taken_by,
        time(info.header.taken_at_ms)
    );
    Ok(())
}

async fn receive(mut body: Body, mut file: BackupFile) -> anyhow::Result<BackupInfo> {
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Err(_) => bail!("the master has sent nothing for {} s; nothing was saved", SILENCE.as_secs()),
            Ok(None) => break,
            Ok(Some(frame)) => frame.context("the connection to the master broke; nothing was saved")?,
        };
        if let Ok(data) = frame.into_data() {
            tokio::task::block_in_place(|| file.write(&data))?;
        }
    }
    Ok(tokio::task::block_in_place(|| file.finish())?)
}
