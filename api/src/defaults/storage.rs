//! Defaults of limits, volumes, claims and the storage group.

use crate::value::{copy, has, items_mut, map, object_mut, set_default, set_default_text, text};
use serde_json::{Value, json};

/// Defaults of a LimitRange: what is not said of containers follows from what is.
pub fn limit_range(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    for item in items_mut(spec, "limits").filter(|item| text(item, "type") == "Container") {
        let (max, min) = (map(item, "max").clone(), map(item, "min").clone());
        if let Some(default) = object_mut(item, "default") {
            max.iter().for_each(|(name, amount)| set_default(default, name, amount.clone()));
        }
        let default = map(item, "default").clone();
        if let Some(requests) = object_mut(item, "defaultRequest") {
            for (name, amount) in default.iter().chain(&min) {
                set_default(requests, name, amount.clone());
            }
        }
        for key in ["default", "defaultRequest"] {
            if map(item, key).is_empty() {
                crate::value::remove(item, key);
            }
        }
    }
}

/// Defaults of a PersistentVolume.
pub fn persistent_volume(object: &mut Value) {
    if let Some(status) = object_mut(object, "status") {
        set_default_text(status, "phase", "Pending");
    }
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    set_default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_default_text(spec, "volumeMode", "Filesystem");
    if let Some(path) = spec.get_mut("hostPath").filter(|p| p.is_object()) {
        set_default(path, "type", "");
    }
    if let Some(iscsi) = spec.get_mut("iscsi").filter(|s| s.is_object()) {
        set_default_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = spec.get_mut("rbd").filter(|s| s.is_object()) {
        for (key, default) in [("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")] {
            set_default_text(rbd, key, default);
        }
    }
    if let Some(scale) = spec.get_mut("scaleIO").filter(|s| s.is_object()) {
        set_default_text(scale, "storageMode", "ThinProvisioned");
        set_default_text(scale, "fsType", "xfs");
    }
    if let Some(disk) = spec.get_mut("azureDisk").filter(|s| s.is_object()) {
        set_default_text(disk, "cachingMode", "ReadWrite");
        set_default_text(disk, "kind", "Shared");
        set_default_text(disk, "fsType", "ext4");
        set_default(disk, "readOnly", false);
    }
}

/// Defaults of a PersistentVolumeClaim, also of one in a template.
pub fn persistent_volume_claim(object: &mut Value) {
    if let Some(status) = object_mut(object, "status") {
        set_default_text(status, "phase", "Pending");
    }
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    set_default_text(spec, "volumeMode", "Filesystem");
    // Both fields say the same, unless the newer one names a namespace, which the older cannot.
    let whole = spec.clone();
    if !has(spec, "dataSourceRef") {
        copy(spec, &whole, "dataSourceRef");
        if let Some(source) = whole.get("dataSource").filter(|s| s.is_object()) {
            set_default(spec, "dataSourceRef", source.clone());
        }
    } else if text(&whole["dataSourceRef"], "namespace").is_empty() {
        set_default(spec, "dataSource", whole["dataSourceRef"].clone());
    }
}

/// Defaults of a StorageClass.
pub fn storage_class(object: &mut Value) {
    set_default_text(object, "reclaimPolicy", "Delete");
    set_default_text(object, "volumeBindingMode", "Immediate");
}

/// Defaults of a CSIDriver.
pub fn csi_driver(object: &mut Value) {
    let Some(spec) = object_mut(object, "spec") else { return };
    set_default(spec, "attachRequired", true);
    for key in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        set_default(spec, key, false);
    }
    set_default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if crate::value::list(spec, "volumeLifecycleModes").is_empty() {
        crate::value::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}
