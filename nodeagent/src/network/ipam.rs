//! Addresses of the node's pods, a file for each: `<address>` holds whose it is.
//!
//! A record is on disk before its address is used and gone only after the link is: a crash between leaves an address
//! taken, which `reconcile` gives back, never one in use twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cidr, HostPort, NetworkError, PodNetwork};

/// File with the address that was given last.
const LAST: &str = "last";

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub key: String,
    pub network: PodNetwork,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// The records in memory, written through.
#[derive(Debug)]
pub(crate) struct Ipam {
    dir: PathBuf,
    records: BTreeMap<Ipv4Addr, Record>,
    /// Last address given: the next search starts after it, so that a freed one rests before it comes again.
    last: Option<Ipv4Addr>,
}

impl Ipam {
    pub fn open(dir: &Path) -> Result<Self, NetworkError> {
        let io = |source| NetworkError::Io { context: format!("cannot read {}", dir.display()), source };
        fs::create_dir_all(dir).map_err(io)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name == LAST {
                continue;
            }
            let Ok(address) = name.parse::<Ipv4Addr>() else {
                // A record that was being written when the process died; no link came of it.
                let _ = fs::remove_file(&path);
                continue;
            };
            let bytes = fs::read(&path).map_err(io)?;
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.network.ip == address => drop(records.insert(address, record)),
                // Unreadable, it is still somebody's: keep the address out of use.
                _ => return Err(NetworkError::Invalid(format!("address record {} is damaged", path.display()))),
            }
        }
        let last = fs::read_to_string(dir.join(LAST)).ok().and_then(|text| text.trim().parse().ok());
        let last = last.or_else(|| records.keys().next_back().copied());
        Ok(Self { dir: dir.to_owned(), records, last })
    }

    pub fn get(&self, key: &str) -> Option<&Record> {
        self.records.values().find(|record| record.key == key)
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The pod's record, made if it has none.
    pub fn allocate(
        &mut self,
        key: &str,
        range: Cidr,
        mtu: u32,
        host_ports: &[HostPort],
    ) -> Result<Record, NetworkError> {
        self.check_host_ports(key, host_ports)?;
        let old = self.get(key).filter(|record| range.contains(record.network.ip)).cloned();
        let record = match old {
            Some(mut record) if record.host_ports != host_ports => {
                record.host_ports = host_ports.to_vec();
                record
            }
            Some(record) => return Ok(record),
            None => {
                let ip = self.free(range).ok_or(NetworkError::Exhausted(range))?;
                let gateway = range.gateway().ok_or(NetworkError::Exhausted(range))?;
                let network = PodNetwork { ip, gateway, mac: text(mac_of(ip)), mtu };
                Record { key: key.to_owned(), network, host_ports: host_ports.to_vec() }
            }
        };
        // An address of a range that the node no longer has.
        self.release(key)?;
        self.write(&record)?;
        self.last = Some(record.network.ip);
        self.records.insert(record.network.ip, record.clone());
        Ok(record)
    }

    pub fn release(&mut self, key: &str) -> Result<Option<Record>, NetworkError> {
        let Some(record) = self.get(key).cloned() else { return Ok(None) };
        match fs::remove_file(self.path(record.network.ip)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.io_error(error));
            }
            _ => {}
        }
        self.records.remove(&record.network.ip);
        Ok(Some(record))
    }

    /// The address after the last one given that is free. The first and the last of the range and the node's own are
    /// nobody's.
    fn free(&self, range: Cidr) -> Option<Ipv4Addr> {
        let (first, end) = (2, range.len().saturating_sub(1));
        let index = |address: Ipv4Addr| u64::from(u32::from(address) - u32::from(range.network()));
        let after = self.last.filter(|last| range.contains(*last)).map_or(first, |last| index(last) + 1);
        (after.max(first)..end)
            .chain(first..after.min(end))
            .filter_map(|index| range.nth(index))
            .find(|address| !self.records.contains_key(address))
    }

    fn check_host_ports(&self, key: &str, wanted: &[HostPort]) -> Result<(), NetworkError> {
        let clash = |a: &HostPort, b: &HostPort| {
            let addresses = a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip;
            a.host_port == b.host_port && a.protocol == b.protocol && addresses
        };
        for record in self.records.values().filter(|record| record.key != key) {
            let taken = record.host_ports.iter().find(|have| wanted.iter().any(|want| clash(have, want)));
            if let Some(taken) = taken {
                return Err(NetworkError::HostPortTaken {
                    port: taken.host_port,
                    protocol: taken.protocol.nft(),
                    owner: record.key.clone(),
                });
            }
        }
        Ok(())
    }

    fn path(&self, address: Ipv4Addr) -> PathBuf {
        self.dir.join(address.to_string())
    }

    fn write(&self, record: &Record) -> Result<(), NetworkError> {
        let path = self.path(record.network.ip);
        let scratch = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            let mut file = File::create(&scratch)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&scratch, &path)?;
            // A hint only: after a crash an older one does no harm.
            let _ = fs::write(self.dir.join(LAST), record.network.ip.to_string());
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| self.io_error(error))
    }

    fn io_error(&self, source: io::Error) -> NetworkError {
        NetworkError::Io { context: format!("cannot change an address record in {}", self.dir.display()), source }
    }
}

/// A MAC that follows from the address: whoever gets the address again gets no stale neighbour entries.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

pub(crate) fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Protocol;
    use super::*;

    fn range() -> Cidr {
        "10.244.3.0/29".parse().unwrap()
    }

    fn port(host_port: u16, host_ip: Option<&str>) -> HostPort {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        HostPort { host_ip, host_port, container_port: 80, protocol: Protocol::Tcp }
    }

    #[test]
    fn addresses_are_kept_and_rest_before_they_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = Ipam::open(dir.path()).unwrap();
        let ip = |ipam: &mut Ipam, key: &str| ipam.allocate(key, range(), 1450, &[]).unwrap().network.ip.octets()[3];
        assert_eq!([ip(&mut ipam, "a"), ip(&mut ipam, "b"), ip(&mut ipam, "a")], [2, 3, 2]);
        ipam.release("a").unwrap();
        assert_eq!(ip(&mut ipam, "c"), 4);
        // A restart forgets nothing, not even who came last; half-written records go.
        fs::write(dir.path().join("10.244.3.6.tmp"), "{").unwrap();
        let mut ipam = Ipam::open(dir.path()).unwrap();
        assert_eq!([ip(&mut ipam, "b"), ip(&mut ipam, "d"), ip(&mut ipam, "e")], [3, 5, 6]);
        assert_eq!(ip(&mut ipam, "f"), 2);
        assert!(matches!(ipam.allocate("g", range(), 1450, &[]), Err(NetworkError::Exhausted(_))));
        assert!(ipam.release("nobody").unwrap().is_none());
        assert!(!dir.path().join("10.244.3.6.tmp").exists());
    }

    #[test]
    fn another_range_gives_another_address() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = Ipam::open(dir.path()).unwrap();
        ipam.allocate("a", range(), 1450, &[]).unwrap();
        let other: Cidr = "10.244.9.0/24".parse().unwrap();
        assert_eq!(ipam.allocate("a", other, 1450, &[]).unwrap().network.ip, Ipv4Addr::new(10, 244, 9, 2));
        assert_eq!(ipam.records().count(), 1);
    }

    #[test]
    fn a_host_port_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = Ipam::open(dir.path()).unwrap();
        ipam.allocate("a", range(), 1450, &[port(80, None)]).unwrap();
        ipam.allocate("a", range(), 1450, &[port(80, None)]).unwrap();
        let taken = ipam.allocate("b", range(), 1450, &[port(80, Some("10.0.0.1"))]);
        assert!(matches!(taken, Err(NetworkError::HostPortTaken { port: 80, .. })));
        ipam.allocate("b", range(), 1450, &[port(81, Some("10.0.0.1"))]).unwrap();
        ipam.allocate("c", range(), 1450, &[port(81, Some("10.0.0.2"))]).unwrap();
    }
}
