//! What a master tells about itself. Nothing here waits for anybody: it is what is asked for when nothing else answers.

use std::path::Path;

use axum::body::Body;
use axum::extract::State;
use http::{Request, Response};
use trireme_api::status::Status;
use trireme_raftstore::Role;

use super::Join;
use super::machines::answer;
use super::members::{info, role_name, user};
use super::wire::{DiskInfo, MasterStatus, StoreInfo};
use crate::audit::Note;
use crate::identity::GROUP_MASTERS;

pub(super) async fn serve(State(join): State<Join>, request: Request<Body>) -> Response<Body> {
    let user = user(&request);
    let allowed = user.in_group(GROUP_MASTERS);
    Note::of(&request).decided(allowed);
    if !allowed {
        let why = format!("User {:?} cannot get path \"/trireme.io/v1/status\"", user.name);
        return answer::<MasterStatus>(Err(Status::forbidden("", "", "", &why)));
    }
    answer(Ok(status(&join)))
}

fn status(join: &Join) -> MasterStatus {
    let store = join.store.status();
    let own = store.members.iter().find(|member| member.id == store.id).cloned();
    let leader = store.leader.and_then(|id| store.members.iter().find(|member| member.id == id));
    let (address, peer_address, role) = own.map_or_else(
        || (join.address.clone(), String::new(), Role::Learner),
        |member| (member.client_address, member.peer_address, member.role),
    );
    MasterStatus {
        name: store.name,
        id: store.id,
        address,
        peer_address,
        role: role_name(role).to_owned(),
        in_contact: store.in_contact,
        leader: leader.map(|member| member.name.clone()),
        term: store.term,
        lineage: store.lineage,
        revision: store.revision,
        compacted_revision: store.compacted,
        last_log_index: store.last_log_index,
        applied_index: store.applied_index,
        db_size_bytes: store.db_size_bytes,
        store: StoreInfo {
            state_bytes: store.state_bytes,
            in_use_bytes: store.in_use_bytes,
            log_bytes: store.log_bytes,
            feature_level: store.feature_level,
            fsync_count: store.fsync.count,
            fsync_p50_ms: store.fsync.p50.as_secs_f64() * 1000.0,
            fsync_p99_ms: store.fsync.p99.as_secs_f64() * 1000.0,
            fsync_max_ms: store.fsync.max.as_secs_f64() * 1000.0,
            snapshot_at: store.backup_at,
        },
        disk: disk(join.pki.dir()),
        alarms: store.alarms.into_iter().map(|alarm| alarm.message).collect(),
        resident_bytes: resident(),
        certificates: join.pki.certificates(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes_version: join.kubernetes_version.clone(),
        start_time: join.started.to_string(),
        now: jiff::Timestamp::now().to_string(),
        members: {
            let mut members: Vec<_> = store.members.into_iter().map(info).collect();
            members.sort_by(|a, b| a.name.cmp(&b.name));
            members
        },
    }
}

/// Room on the file system of a folder.
fn disk(folder: &Path) -> Option<DiskInfo> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(DiskInfo { total_bytes: stat.f_blocks * stat.f_frsize, available_bytes: stat.f_bavail * stat.f_frsize })
}

fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
