//! Image garbage collection: looks now and then how full the disk is, and removes what no pod of this node needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use crate::images::{Ages, Disk, Image, Plan};
use crate::pods::Context;
use crate::shim::client::read_records;

/// Collects until `shutdown`.
pub(crate) async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut ages = Ages::default();
    let mut failed_before = false;
    loop {
        match collect(&context, &mut ages).await {
            Ok(()) => failed_before = false,
            // Once is nothing to tell the operator about, upstream finds; twice is.
            Err(message) if failed_before => warn(&context, "ImageGCFailed", &message),
            Err(message) => {
                tracing::warn!(message, "image garbage collection failed once");
                failed_before = true;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(context.config.image_gc.period) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn warn(context: &Context, reason: &str, message: &str) {
    tracing::warn!(reason, message);
    let metadata = ObjectMeta { name: Some(context.config.node_name.clone()), ..ObjectMeta::default() };
    context.emit_node(&Node { metadata, ..Node::default() }, true, reason, message);
}

async fn collect(context: &Arc<Context>, ages: &mut Ages) -> Result<(), String> {
    let now = Instant::now();
    let look = context.clone();
    let (disk, images, in_use) = tokio::task::spawn_blocking(move || {
        let images = look.images.list();
        let in_use = in_use(&look, &images);
        (disk(&look), images, in_use)
    })
    .await
    .map_err(|error| error.to_string())?;
    ages.observe(&images, &in_use, now);
    let disk = disk.map_err(|error| format!("failed to get imageFs stats: {error}"))?;
    if disk.capacity == 0 {
        let message = "invalid capacity 0 on image filesystem";
        warn(context, "InvalidDiskCapacity", message);
        return Err(message.to_owned());
    }
    let kept: BTreeSet<String> = in_use.union(&context.images.pinned()).cloned().collect();
    let plan = ages.plan(&context.config.image_gc, disk, &images, &kept, now);
    if plan.wanted == 0 {
        return Ok(());
    }
    tracing::info!(wanted = plan.wanted, images = plan.remove.len(), "the disk is filling up; removing unused images");
    carry_out(context, &plan).await
}

async fn carry_out(context: &Arc<Context>, plan: &Plan) -> Result<(), String> {
    let look = context.clone();
    let removed = context.images.remove_images(&plan.remove, move |images| in_use(&look, images)).await;
    let collected = removed.map_err(|error| error.to_string())?;
    tracing::info!(images = collected.images, bytes = collected.bytes, "images removed");
    if plan.freed < plan.wanted {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only found {} bytes \
             eligible to free.",
            plan.wanted, plan.freed
        );
        warn(context, "FreeDiskSpaceFailed", &message);
        return Err(message);
    }
    Ok(())
}

fn disk(context: &Context) -> std::io::Result<Disk> {
    let stat = rustix::fs::statvfs(context.config.data_dir.join("images"))?;
    Ok(Disk { capacity: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
}

/// Images that a container was made from, dead ones included, or that a pod of this node names.
fn in_use(context: &Context, images: &[Arc<Image>]) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for view in context.register.all() {
        let spec = view.pod.spec.iter();
        let names = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        let found = names.filter_map(|container| context.images.resolve(container.image.as_deref()?).ok().flatten());
        used.extend(found.map(|image| image.digest.clone()));
    }
    // A tag may stand for another image by now: what a container stands on is in its record.
    for directory in directories(&context.config.data_dir.join("pods")) {
        for record in read_records(&directory) {
            let made_from = images.iter().filter(|image| image.layers == record.spec.layers);
            used.extend(made_from.map(|image| image.digest.clone()));
        }
    }
    used
}

fn directories(root: &std::path::Path) -> Vec<PathBuf> {
    fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
