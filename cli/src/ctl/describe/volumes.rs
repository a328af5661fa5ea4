//! Volumes of pods and persistent volumes, each source with kubectl's words.

use serde_json::Value;

use super::writer::{Page, bracketed, in_order, items, plain, shorten, some};

/// How a field of a source is shown.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// As it is; nothing if it is missing.
    Text,
    /// `false` if it is missing.
    Flag,
    /// `0` if it is missing.
    Number,
    OrNone,
    OrUnset,
    /// `[a b]`
    List,
    /// `a, b`
    Joined,
    /// A reference to a secret, as Go prints it.
    Reference,
    /// One with a namespace.
    Namespaced,
    /// `map[a:b]`
    Map,
}

use Shown::{Flag, Joined, List, Map, Namespaced, Number, OrNone, OrUnset, Reference, Text};

/// Name with its colon, field and how it is shown.
type Row = (&'static str, &'static str, Shown);
/// Field of the volume, what it is, and its rows.
type Source = (&'static str, &'static str, &'static [Row]);

const FS: Row = ("FSType:", "fsType", Text);
const RO: Row = ("ReadOnly:", "readOnly", Flag);
const PARTITION: Row = ("Partition:", "partition", Number);
const SECRET: Row = ("SecretRef:", "secretRef", Reference);

/// The sources that pods and persistent volumes have in common, or that only one of them has.
const SOURCES: &[Source] = &[
    (
        "hostPath",
        "HostPath (bare host directory volume)",
        &[("Path:", "path", Text), ("HostPathType:", "type", OrNone)],
    ),
    (
        "emptyDir",
        "EmptyDir (a temporary directory that shares a pod's lifetime)",
        &[("Medium:", "medium", Text), ("SizeLimit:", "sizeLimit", OrUnset)],
    ),
    (
        "gcePersistentDisk",
        "GCEPersistentDisk (a Persistent Disk resource in Google Compute Engine)",
        &[("PDName:", "pdName", Text), FS, PARTITION, RO],
    ),
    (
        "awsElasticBlockStore",
        "AWSElasticBlockStore (a Persistent Disk resource in AWS)",
        &[("VolumeID:", "volumeID", Text), FS, PARTITION, RO],
    ),
    (
        "gitRepo",
        "GitRepo (a volume that is pulled from git when the pod is created)",
        &[("Repository:", "repository", Text), ("Revision:", "revision", Text)],
    ),
    (
        "secret",
        "Secret (a volume populated by a Secret)",
        &[("SecretName:", "secretName", Text), ("Optional:", "optional", Flag)],
    ),
    (
        "configMap",
        "ConfigMap (a volume populated by a ConfigMap)",
        &[("Name:", "name", Text), ("Optional:", "optional", Flag)],
    ),
    (
        "nfs",
        "NFS (an NFS mount that lasts the lifetime of a pod)",
        &[("Server:", "server", Text), ("Path:", "path", Text), RO],
    ),
    (
        "iscsi",
        "ISCSI (an ISCSI Disk resource that is attached to a kubelet's host machine and then exposed to the pod)",
        &[
            ("TargetPortal:", "targetPortal", Text),
            ("IQN:", "iqn", Text),
            ("Lun:", "lun", Number),
            ("ISCSIInterface", "iscsiInterface", Text),
            FS,
            RO,
            ("Portals:", "portals", List),
            ("DiscoveryCHAPAuth:", "chapAuthDiscovery", Flag),
            ("SessionCHAPAuth:", "chapAuthSession", Flag),
            SECRET,
            ("InitiatorName:", "initiatorName", OrNone),
        ],
    ),
    (
        "glusterfs",
        "Glusterfs (a Glusterfs mount on the host that shares a pod's lifetime)",
        &[("EndpointsName:", "endpoints", Text), ("Path:", "path", Text), RO],
    ),
    (
        "persistentVolumeClaim",
        "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        &[("ClaimName:", "claimName", Text), RO],
    ),
    (
        "ephemeral",
        "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)",
        &[],
    ),
    (
        "rbd",
        "RBD (a Rados Block Device mount on the host that shares a pod's lifetime)",
        &[
            ("CephMonitors:", "monitors", List),
            ("RBDImage:", "image", Text),
            FS,
            ("RBDPool:", "pool", Text),
            ("RadosUser:", "user", Text),
            ("Keyring:", "keyring", Text),
            SECRET,
            RO,
        ],
    ),
    (
        "quobyte",
        "Quobyte (a Quobyte mount on the host that shares a pod's lifetime)",
        &[("Registry:", "registry", Text), ("Volume:", "volume", Text), RO],
    ),
    ("downwardAPI", "DownwardAPI (a volume populated by information about the pod)", &[]),
    (
        "azureDisk",
        "AzureDisk (an Azure Data Disk mount on the host and bind mount to the pod)",
        &[
            ("DiskName:", "diskName", Text),
            ("DiskURI:", "diskURI", Text),
            ("Kind: ", "kind", Text),
            FS,
            ("CachingMode:", "cachingMode", Text),
            RO,
        ],
    ),
    (
        "vsphereVolume",
        "vSphereVolume (a Persistent Disk resource in vSphere)",
        &[("VolumePath:", "volumePath", Text), FS, ("StoragePolicyName:", "storagePolicyName", Text)],
    ),
    ("cinder", "Cinder (a Persistent Disk resource in OpenStack)", &[("VolumeID:", "volumeID", Text), FS, RO, SECRET]),
    (
        "photonPersistentDisk",
        "PhotonPersistentDisk (a Persistent Disk resource in photon platform)",
        &[("PdID:", "pdID", Text), FS],
    ),
    ("portworxVolume", "PortworxVolume (a Portworx Volume resource)", &[("VolumeID:", "volumeID", Text)]),
    (
        "scaleIO",
        "ScaleIO (a persistent volume backed by a block device in ScaleIO)",
        &[
            ("Gateway:", "gateway", Text),
            ("System:", "system", Text),
            ("Protection Domain:", "protectionDomain", Text),
            ("Storage Pool:", "storagePool", Text),
            ("Storage Mode:", "storageMode", Text),
            ("VolumeName:", "volumeName", Text),
            FS,
            RO,
        ],
    ),
    (
        "cephfs",
        "CephFS (a CephFS mount on the host that shares a pod's lifetime)",
        &[
            ("Monitors:", "monitors", List),
            ("Path:", "path", Text),
            ("User:", "user", Text),
            ("SecretFile:", "secretFile", Text),
            SECRET,
            RO,
        ],
    ),
    (
        "storageos",
        "StorageOS (a StorageOS Persistent Disk resource)",
        &[("VolumeName:", "volumeName", Text), ("VolumeNamespace:", "volumeNamespace", Text), FS, RO],
    ),
    ("fc", "FC (a Fibre Channel disk)", &[("TargetWWNs:", "targetWWNs", Joined), ("LUN:", "lun", OrNone), FS, RO]),
    (
        "azureFile",
        "AzureFile (an Azure File Service mount on the host and bind mount to the pod)",
        &[("SecretName:", "secretName", Text), ("ShareName:", "shareName", Text), RO],
    ),
    (
        "flexVolume",
        "FlexVolume (a generic volume resource that is provisioned/attached using an exec based plugin)",
        &[("Driver:", "driver", Text), FS, SECRET, RO, ("Options:", "options", Map)],
    ),
    (
        "flocker",
        "Flocker (a Flocker volume mounted by the Flocker agent)",
        &[("DatasetName:", "datasetName", Text), ("DatasetUUID:", "datasetUUID", Text)],
    ),
    ("projected", "Projected (a volume that contains injected data from multiple sources)", &[]),
    ("csi", "CSI (a Container Storage Interface (CSI) volume source)", &[("Driver:", "driver", Text), FS, RO]),
    (
        "image",
        "Image (a container image or OCI artifact)",
        &[("Reference:", "reference", Text), ("PullPolicy:", "pullPolicy", Text)],
    ),
    ("local", "LocalVolume (a persistent volume backed by local storage on a node)", &[("Path:", "path", Text)]),
];

/// Sources of which persistent volumes show other rows.
const PERSISTENT: &[(&str, &[Row])] = &[
    (
        "glusterfs",
        &[
            ("EndpointsName:", "endpoints", Text),
            ("EndpointsNamespace:", "endpointsNamespace", OrUnset),
            ("Path:", "path", Text),
            RO,
        ],
    ),
    (
        "azureFile",
        &[
            ("SecretName:", "secretName", Text),
            ("SecretNamespace:", "secretNamespace", Text),
            ("ShareName:", "shareName", Text),
            RO,
        ],
    ),
    ("csi", &[("Driver:", "driver", Text), FS, ("VolumeHandle:", "volumeHandle", Text), RO]),
];

fn shown(value: &Value, how: Shown) -> String {
    let or = |text: &str| if value.is_null() { text.to_owned() } else { plain(value) };
    match how {
        Text => plain(value),
        Flag => or("false"),
        Number => or("0"),
        OrNone => or("<none>"),
        OrUnset => or("<unset>"),
        List => bracketed(value),
        Joined => items(value).map(plain).collect::<Vec<_>>().join(", "),
        Reference | Namespaced if value.is_null() => "nil".to_owned(),
        Reference => format!("&LocalObjectReference{{Name:{},}}", plain(&value["name"])),
        Namespaced => {
            format!("&SecretReference{{Name:{},Namespace:{},}}", plain(&value["name"]), plain(&value["namespace"]))
        }
        Map => {
            let pairs: Vec<String> =
                in_order(value).into_iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// The source of a volume: its type and its fields.
fn source(page: &mut Page, volume: &Value, persistent: bool) {
    let Some((field, about, rows)) = SOURCES.iter().find(|(field, ..)| volume[*field].is_object()) else {
        page.line(1, "<unknown>");
        return;
    };
    let own = PERSISTENT.iter().find(|(known, _)| persistent && known == field);
    let rows = own.map_or(rows, |(_, rows)| rows);
    let value = &volume[*field];
    page.field(2, "Type", about);
    for (name, field, how) in *rows {
        let how = if persistent && matches!(how, Reference) { Namespaced } else { *how };
        page.line(2, &format!("{name}\t{}", shown(&value[*field], how)));
    }
    match *field {
        "csi" => attributes(page, &value["volumeAttributes"]),
        "downwardAPI" => downward(page, &value["items"]),
        "projected" => items(&value["sources"]).for_each(|part| projected(page, part)),
        "ephemeral" if value["volumeClaimTemplate"].is_object() => {
            super::storage::claim_template(page, &value["volumeClaimTemplate"]);
        }
        _ => {}
    }
}

/// kubectl writes its indentation again before each value.
fn attributes(page: &mut Page, attributes: &Value) {
    let pairs = in_order(attributes);
    if pairs.is_empty() {
        page.field(2, "VolumeAttributes", "<none>");
    }
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        let line = shorten(&format!("{key}={}", plain(value)), 140);
        page.line(2, &format!("{}\t    {line}", if index == 0 { "VolumeAttributes:" } else { "    " }));
    }
}

fn downward(page: &mut Page, files: &Value) {
    page.line(2, "Items:");
    for file in items(files) {
        for from in [&file["fieldRef"]["fieldPath"], &file["resourceFieldRef"]["resource"]] {
            if let Some(from) = from.as_str() {
                page.line(3, &format!("{from} -> {}", plain(&file["path"])));
            }
        }
    }
}

fn projected(page: &mut Page, part: &Value) {
    let optional = |page: &mut Page, value: &Value| page.field(2, "Optional", &shown(&value["optional"], Flag));
    if part["secret"].is_object() {
        page.field(2, "SecretName", &plain(&part["secret"]["name"]));
        optional(page, &part["secret"]);
    } else if part["downwardAPI"].is_object() {
        page.field(2, "DownwardAPI", "true");
    } else if part["configMap"].is_object() {
        page.field(2, "ConfigMapName", &plain(&part["configMap"]["name"]));
        optional(page, &part["configMap"]);
    } else if part["serviceAccountToken"].is_object() {
        let seconds = part["serviceAccountToken"]["expirationSeconds"].as_i64().unwrap_or(3600);
        page.field(2, "TokenExpirationSeconds", &seconds.to_string());
    }
}

/// `Volumes:` of a pod, or of a template at level 1.
pub fn volumes(page: &mut Page, volumes: &Value, level: usize) {
    if !some(volumes) {
        page.field(level, "Volumes", "<none>");
        return;
    }
    page.line(level, "Volumes:");
    for volume in items(volumes) {
        page.line(1, &format!("{}{}:", if level > 0 { " " } else { "" }, plain(&volume["name"])));
        source(page, volume, false);
    }
}

/// `Source:` of a persistent volume.
pub fn persistent(page: &mut Page, spec: &Value) {
    page.line(0, "Source:");
    source(page, spec, true);
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_source_has_its_words() {
        let mut page = Page::new(Timestamp::UNIX_EPOCH);
        volumes(
            &mut page,
            &json!([
                {"name": "a", "csi": {"driver": "d", "volumeAttributes": {"k": "v", "b": "c"}}},
                {"name": "b", "flexVolume": {"driver": "x/y", "secretRef": {"name": "s"}, "options": {"o": "p"}}},
                {"name": "c", "fc": {"targetWWNs": ["1", "2"], "lun": 3}},
                {"name": "d", "projected": {"sources": [{"secret": {"name": "s"}}, {"downwardAPI": {}}]}},
                {"name": "e", "nope": {}},
            ]),
            0,
        );
        let expected = "\
Volumes:
  a:
    Type:              CSI (a Container Storage Interface (CSI) volume source)
    Driver:            d
    FSType:            
    ReadOnly:          false
    VolumeAttributes:      b=c
                           k=v
  b:
    Type:       FlexVolume (a generic volume resource that is provisioned/attached using an exec based plugin)
    Driver:     x/y
    FSType:     
    SecretRef:  &LocalObjectReference{Name:s,}
    ReadOnly:   false
    Options:    map[o:p]
  c:
    Type:        FC (a Fibre Channel disk)
    TargetWWNs:  1, 2
    LUN:         3
    FSType:      
    ReadOnly:    false
  d:
    Type:         Projected (a volume that contains injected data from multiple sources)
    SecretName:   s
    Optional:     false
    DownwardAPI:  true
  e:
  <unknown>
";
        assert_eq!(page.finish(), expected);
    }
}
