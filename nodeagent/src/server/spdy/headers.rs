//! Header blocks: names and values, compressed with zlib and the dictionary of SPDY/3.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateError, InflateFlush, Status};

/// Longest header block after decompression.
const MAX_BLOCK: usize = 64 << 10;

/// Words of the dictionary, each of which has its length in front.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
/// The rest of the dictionary.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
    Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace() {
        let word = word.replace('_', " ");
        put_text(&mut dictionary, word.as_bytes());
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});

/// Names (in lower case) and values; of several values the first.
pub(crate) type Headers = BTreeMap<String, String>;

/// A block that cannot be read. The session cannot go on: both sides' compression states differ from now on.
#[derive(Debug, thiserror::Error)]
#[error("a header block is malformed or too long")]
pub(super) struct BadBlock;

/// Reads the peer's blocks, in the order in which they come.
pub(super) struct Decompressor {
    inflate: Inflate,
}

impl Decompressor {
    pub(super) fn new() -> Decompressor {
        Decompressor { inflate: Inflate::new(true, 15) }
    }

    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, BadBlock> {
        parse(&self.decompress(block)?)
    }

    fn decompress(&mut self, mut input: &[u8]) -> Result<Vec<u8>, BadBlock> {
        let mut out = Vec::new();
        let mut buffer = [0_u8; 4096];
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let outcome = self.inflate.decompress(input, &mut buffer, InflateFlush::SyncFlush);
            let read = usize::try_from(self.inflate.total_in() - read).map_err(|_| BadBlock)?;
            let written = usize::try_from(self.inflate.total_out() - written).map_err(|_| BadBlock)?;
            input = &input[read..];
            out.extend_from_slice(&buffer[..written]);
            if out.len() > MAX_BLOCK {
                return Err(BadBlock);
            }
            match outcome {
                Err(InflateError::NeedDict { .. }) => {
                    self.inflate.set_dictionary(&DICTIONARY).map_err(|_| BadBlock)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(BadBlock),
                Ok(_) if written == buffer.len() => {}
                Ok(_) if input.is_empty() => return Ok(out),
                Ok(_) if read == 0 && written == 0 => return Err(BadBlock),
                Ok(_) => {}
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, BadBlock> {
    let count = take_number(&mut block)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = take_text(&mut block)?.to_ascii_lowercase();
        let value = take_text(&mut block)?;
        let first = value.split('\0').next().unwrap_or_default().to_owned();
        headers.insert(name, first);
    }
    Ok(headers)
}

fn take_number(block: &mut &[u8]) -> Result<usize, BadBlock> {
    let (number, rest) = block.split_first_chunk::<4>().ok_or(BadBlock)?;
    *block = rest;
    usize::try_from(u32::from_be_bytes(*number)).map_err(|_| BadBlock)
}

fn take_text(block: &mut &[u8]) -> Result<String, BadBlock> {
    let length = take_number(block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(BadBlock)?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(text);
}

/// Writes blocks, in the order in which they are sent.
pub(super) struct Compressor {
    deflate: Deflate,
}

impl Compressor {
    pub(super) fn new() -> Compressor {
        let mut deflate = Deflate::new(6, true, 15);
        // Fails only for a stream that has begun.
        let _ = deflate.set_dictionary(&DICTIONARY);
        Compressor { deflate }
    }

    pub(super) fn write(&mut self, headers: &Headers) -> Vec<u8> {
        let mut block = u32::try_from(headers.len()).unwrap_or_default().to_be_bytes().to_vec();
        for (name, value) in headers {
            put_text(&mut block, name.as_bytes());
            put_text(&mut block, value.as_bytes());
        }
        let mut out = Vec::new();
        let mut input = &block[..];
        let mut buffer = [0_u8; 4096];
        loop {
            let (read, written) = (self.deflate.total_in(), self.deflate.total_out());
            let outcome = self.deflate.compress(input, &mut buffer, DeflateFlush::SyncFlush);
            let read = usize::try_from(self.deflate.total_in() - read).unwrap_or_default();
            let written = usize::try_from(self.deflate.total_out() - written).unwrap_or_default();
            input = &input[read..];
            out.extend_from_slice(&buffer[..written]);
            if outcome.is_err() || written < buffer.len() {
                return out;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_dictionary_is_spdys() {
        assert_eq!(DICTIONARY.len(), 1423);
        let mut deflate = Deflate::new(6, true, 15);
        assert_eq!(deflate.set_dictionary(&DICTIONARY), Ok(0xe3c6_a7c2));
    }

    #[test]
    fn blocks_survive_the_way_there_and_back() {
        let (mut there, mut back) = (Compressor::new(), Decompressor::new());
        for round in 0..50 {
            let long = "x".repeat(round * 300);
            let sent = headers(&[("streamtype", "stdin"), ("port", &round.to_string()), ("long", &long)]);
            assert_eq!(back.read(&there.write(&sent)).unwrap(), sent);
        }
        assert_eq!(back.read(&there.write(&Headers::new())).unwrap(), Headers::new());
    }

    #[test]
    fn hostile_blocks_are_refused() {
        assert!(Decompressor::new().read(b"").is_err(), "nothing");
        assert!(Decompressor::new().read(b"not zlib at all").is_err());
        let bomb = headers(&[("bomb", &"a".repeat(1 << 20))]);
        let block = Compressor::new().write(&bomb);
        assert!(block.len() < 8192);
        assert!(Decompressor::new().read(&block).is_err(), "a bomb");
        assert!(parse(&[0xff; 4]).is_err(), "more pairs than bytes");
        assert!(parse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, b'a']).is_err(), "a name longer than the block");
        assert!(parse(&[0, 0, 0, 1, 0, 0, 0, 1, b'a']).is_err(), "no value");
    }

    #[test]
    fn of_several_values_the_first_counts() {
        let mut block = 1_u32.to_be_bytes().to_vec();
        put_text(&mut block, b"Port");
        put_text(&mut block, b"80\081");
        assert_eq!(parse(&block).unwrap(), headers(&[("port", "80")]));
    }
}
