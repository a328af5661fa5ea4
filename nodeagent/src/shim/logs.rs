//! Container output to log files in CRI's format: `<time> <stream> <P|F> <text>`.
//!
//! `F` ends a line; `P` is a piece of one that was too long. Files are bounded: a full one is renamed, the oldest goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest piece of a line.
const MAX_PIECE: usize = 16 << 10;

/// Which stream a piece of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Writes one container's log.
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    max_bytes: u64,
    max_files: u32,
    /// Beginnings of lines that have not ended, for stdout and stderr.
    pending: [Vec<u8>; 2],
}

impl LogWriter {
    /// Opens a log to be appended to.
    pub(crate) fn open(path: &Path, max_bytes: u64, max_files: u32) -> io::Result<LogWriter> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        let pending = [Vec::new(), Vec::new()];
        Ok(LogWriter { path: path.to_owned(), file, size, max_bytes, max_files, pending })
    }

    /// Adds output that was read at `time` (RFC 3339).
    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8], time: &str) -> io::Result<()> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            pending.extend_from_slice(&bytes[..at]);
            bytes = &bytes[at + 1..];
            split_long(&mut out, &mut pending, stream, time);
            piece(&mut out, &pending, stream, "F", time);
            pending.clear();
        }
        pending.extend_from_slice(bytes);
        split_long(&mut out, &mut pending, stream, time);
        self.pending[stream as usize] = pending;
        self.append(&out)
    }

    /// Writes what came after the last line end.
    pub(crate) fn finish(&mut self, time: &str) -> io::Result<()> {
        let mut out = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(&mut self.pending[stream as usize]);
            if !pending.is_empty() {
                piece(&mut out, &pending, stream, "F", time);
            }
        }
        self.append(&out)
    }

    fn append(&mut self, out: &[u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + out.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(out)?;
        self.size += out.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.max_files.saturating_sub(1)).rev() {
            if numbered(n).exists() {
                fs::rename(numbered(n), numbered(n + 1))?;
            }
        }
        fs::rename(&self.path, numbered(1))?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn split_long(out: &mut Vec<u8>, pending: &mut Vec<u8>, stream: Stream, time: &str) {
    let mut from = 0;
    while pending.len() - from > MAX_PIECE {
        piece(out, &pending[from..from + MAX_PIECE], stream, "P", time);
        from += MAX_PIECE;
    }
    pending.drain(..from);
}

fn piece(out: &mut Vec<u8>, text: &[u8], stream: Stream, tag: &str, time: &str) {
    out.extend_from_slice(time.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.push(b' ');
    out.extend_from_slice(tag.as_bytes());
    out.push(b' ');
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// The time now as RFC 3339 with nanoseconds.
pub(crate) fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_pieces_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/0.log");
        let mut log = LogWriter::open(&path, 1 << 20, 5).unwrap();
        log.write(Stream::Stdout, b"one\ntw", "T").unwrap();
        log.write(Stream::Stderr, b"err\n", "T").unwrap();
        log.write(Stream::Stdout, b"o\n\nrest", "T").unwrap();
        log.finish("T").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "T stdout F one\nT stderr F err\nT stdout F two\nT stdout F \nT stdout F rest\n");
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path, 1 << 20, 5).unwrap();
        log.write(Stream::Stdout, &vec![b'x'; MAX_PIECE * 2 + 5], "T").unwrap();
        log.write(Stream::Stdout, b"\n", "T").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let tags: Vec<_> = text.lines().map(|l| (l.split(' ').nth(2).unwrap(), l.len())).collect();
        assert_eq!(tags, [("P", 11 + MAX_PIECE), ("P", 11 + MAX_PIECE), ("F", 11 + 5)]);
    }

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path, 100, 3).unwrap();
        for n in 0..40 {
            log.write(Stream::Stdout, format!("line {n:02}\n").as_bytes(), "T").unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
        assert!(fs::read_to_string(&path).unwrap().ends_with("line 39\n"));
        assert!(fs::metadata(dir.path().join("0.log.1")).unwrap().len() <= 100);
    }
}
