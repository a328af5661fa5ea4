//! The channel protocol of exec, versions 4 and 5: the first byte of a message names the stream.

use serde_json::{Value, json};

/// What a message from the server means.
#[derive(Debug, PartialEq)]
pub enum Frame<'a> {
    /// Standard output.
    Out(&'a [u8]),
    /// Standard error.
    Err(&'a [u8]),
    /// The command ended.
    Done(Outcome),
    /// Nothing of interest.
    Other,
}

/// How a command ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// With exit code 0.
    Success,
    /// With another exit code.
    Exit(i32),
    /// It could not be run; the server's `Status`.
    Failure(Value),
    /// Nobody knows.
    Lost,
}

/// Reads a message.
pub fn read(message: &[u8]) -> Frame<'_> {
    match message.split_first() {
        Some((1, data)) => Frame::Out(data),
        Some((2, data)) => Frame::Err(data),
        Some((3, data)) if !data.is_empty() => Frame::Done(outcome(data)),
        _ => Frame::Other,
    }
}

fn outcome(data: &[u8]) -> Outcome {
    let Ok(status) = serde_json::from_slice::<Value>(data) else {
        return Outcome::Failure(json!({"message": String::from_utf8_lossy(data)}));
    };
    if status["status"] == "Success" {
        return Outcome::Success;
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes
        .filter(|cause| cause["reason"] == "ExitCode")
        .find_map(|cause| cause["message"].as_str()?.parse::<i32>().ok());
    match code {
        Some(code) => Outcome::Exit(code),
        None => Outcome::Failure(status),
    }
}

/// Standard input.
pub fn stdin(data: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(data.len() + 1);
    message.push(0);
    message.extend_from_slice(data);
    message
}

/// The end of standard input (version 5).
pub fn close_stdin() -> Vec<u8> {
    vec![255, 0]
}

/// A new size of the terminal, columns and rows.
pub fn resize((width, height): (u16, u16)) -> Vec<u8> {
    let mut message = vec![4];
    message.extend_from_slice(json!({"Width": width, "Height": height}).to_string().as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(read(b"\x01hi"), Frame::Out(b"hi"));
        assert_eq!(read(b"\x02"), Frame::Err(b""));
        assert_eq!(read(b""), Frame::Other);
        assert_eq!(read(b"\x03{\"status\":\"Success\"}"), Frame::Done(Outcome::Success));
        let failed = b"\x03{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"7\"}]}}";
        assert_eq!(read(failed), Frame::Done(Outcome::Exit(7)));
        assert!(matches!(read(b"\x03oops"), Frame::Done(Outcome::Failure(_))));
        assert_eq!(stdin(b"a"), b"\0a");
        assert_eq!(resize((80, 24)), b"\x04{\"Width\":80,\"Height\":24}");
    }
}
