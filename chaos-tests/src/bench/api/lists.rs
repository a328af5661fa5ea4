//! Reading collections: how long it takes, how much comes, and what it costs the master that answers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use super::bed::Bed;
use crate::report;

/// Longest time of one list.
const PATIENCE: Duration = Duration::from_secs(120);
/// What kubectl asks for.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// One list that is read again and again.
pub struct Question {
    /// How rows call it.
    pub name: String,
    /// Where.
    pub path: String,
    /// How it is asked for.
    pub headers: Vec<(HeaderName, &'static str)>,
    /// How often.
    pub times: usize,
    /// Most milliseconds, if that is aimed at.
    pub aim_ms: Option<f64>,
    /// Most MiB above what the master had before, if that is aimed at.
    pub aim_mib: Option<f64>,
    /// At least so many bytes have to come.
    pub at_least: u64,
}

impl Question {
    /// A list as programs read it.
    pub fn new(name: impl Into<String>, path: impl Into<String>, times: usize) -> Self {
        let (name, path) = (name.into(), path.into());
        Self { name, path, headers: Vec::new(), times, aim_ms: None, aim_mib: None, at_least: 0 }
    }

    /// The same, compressed.
    pub fn gzip(mut self) -> Self {
        self.headers.push((ACCEPT_ENCODING, "gzip"));
        self
    }

    /// The same as kubectl shows it.
    pub fn table(mut self) -> Self {
        self.headers.push((ACCEPT, TABLE));
        self
    }

    /// The metadata alone.
    pub fn metadata(mut self) -> Self {
        self.headers.push((ACCEPT, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"));
        self
    }

    /// With most milliseconds.
    pub fn within(mut self, ms: f64) -> Self {
        self.aim_ms = Some(ms);
        self
    }

    /// With most MiB.
    pub fn above(mut self, mib: f64) -> Self {
        self.aim_mib = Some(mib);
        self
    }

    /// With so many bytes at least.
    pub fn bytes(mut self, at_least: u64) -> Self {
        self.at_least = at_least;
        self
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Milliseconds of each time.
    pub ms: Vec<f64>,
    /// Bytes that came.
    pub bytes: u64,
    /// Most MiB above what the master had before.
    pub mib: f64,
    /// Processor time of all masters for one list, in milliseconds.
    pub cpu_ms: f64,
}

/// Asks one master again and again; the first time is not counted, but its memory is.
///
/// # Errors
/// When there is no whole answer.
pub async fn ask(bed: &Bed, question: &Question) -> Result<Answer> {
    // Not the first one, which may lead: whoever answers lists is to do nothing else.
    let master = 1 % bed.targets.len();
    let mut connection = bed.targets[master].connect().await?;
    let mut answer = Answer::default();
    let peak = bed.peak(master)?;
    let mut begun_cpu = bed.cpu()?;
    for time in 0..=question.times {
        if time == 1 {
            begun_cpu = bed.cpu()?;
        }
        let begun = Instant::now();
        let asked = connection.list(&question.path, &question.headers);
        let (bytes, last) = tokio::time::timeout(PATIENCE, asked).await??;
        let took = report::ms(begun.elapsed());
        ensure!(bytes >= question.at_least, "{}: {bytes} bytes, not {}", question.name, question.at_least);
        let whole = !question.headers.is_empty() || last.ends_with(b"}\n") || last.ends_with(b"}");
        ensure!(whole, "{}: it ends with {:?}", question.name, String::from_utf8_lossy(&last));
        answer.bytes = bytes;
        if time > 0 {
            answer.ms.push(took);
        }
    }
    answer.mib = peak.end();
    answer.cpu_ms = report::ms(bed.cpu()?.saturating_sub(begun_cpu)) / question.times.max(1) as f64;
    Ok(answer)
}
