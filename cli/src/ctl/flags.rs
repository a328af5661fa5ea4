//! Flags as kubectl's users know them: `--flag=false`, the last of two wins, any value behind a flag that takes one,
//! and complaints in the words of the library that kubectl reads its flags with.

use std::ffi::OsString;
use std::sync::OnceLock;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command};

/// Marks a complaint of a value parser that is printed as it is, without naming the flag.
const BARE: char = '\u{1}';

/// Makes every flag of a command and its subcommands behave so.
pub fn prepare(command: Command) -> Command {
    let command = command.args_override_self(true).mut_args(|argument| {
        if argument.is_positional() {
            return argument;
        }
        match argument.get_action() {
            ArgAction::SetTrue => argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("false")
                .value_parser(ValueParser::new(boolean))
                .hide_default_value(true),
            ArgAction::Set if argument.is_require_equals_set() && argument.get_default_values().iter().any(is_bool) => {
                argument.value_parser(ValueParser::new(boolean))
            }
            ArgAction::Set | ArgAction::Append if !argument.is_require_equals_set() => {
                argument.allow_hyphen_values(true)
            }
            _ => argument,
        }
    });
    command.mut_subcommands(prepare)
}

fn is_bool(value: &clap::builder::OsStr) -> bool {
    value == "true" || value == "false"
}

/// A truth value as Go reads it.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Seconds from a duration as Go writes it; it may be negative.
pub fn seconds(text: &str) -> Result<f64, String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    match super::time::duration(rest) {
        Ok(duration) => Ok(sign * duration.as_secs_f64()),
        Err(_) if rest.parse::<f64>().is_ok() => Err(format!("time: missing unit in duration {text:?}")),
        Err(_) => Err(format!("time: invalid duration {text:?}")),
    }
}

/// A duration that stays as it is written.
pub fn duration_text(text: &str) -> Result<String, String> {
    seconds(text).map(|_| text.to_owned())
}

static PATH: OnceLock<String> = OnceLock::new();

/// Full name of the verb that runs, for hints at its help.
pub fn path() -> &'static str {
    PATH.get().map_or("trictl", String::as_str)
}

/// Remembers which verb a command line means.
pub fn remember(command: &Command, words: &[OsString]) {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let _ = PATH.set(verb(command, &words).0);
}

/// A complaint that stands alone behind `error: `.
pub fn bare(text: impl std::fmt::Display) -> String {
    format!("{BARE}{text}")
}

/// What to print for a command line that cannot be understood.
pub fn complaint(error: &clap::Error, command: &Command, words: &[OsString]) -> String {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (path, known) = verb(command, &words);
    let context = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let usage = |text: String| format!("error: {text}\nSee '{path} --help' for usage.\n");
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let flag = context(ContextKind::InvalidArg);
            if !flag.starts_with('-') {
                return format!("error: unexpected arguments: [{flag}]\nSee '{path} -h' for help and examples\n");
            }
            if flag.starts_with("--") {
                return usage(format!("unknown flag: {}", flag.split('=').next().unwrap_or(&flag)));
            }
            let letter = flag.chars().nth(1).unwrap_or('-');
            let word =
                words.iter().find(|word| !word.starts_with("--") && word.starts_with('-') && word.contains(letter));
            usage(format!("unknown shorthand flag: {letter:?} in {}", word.unwrap_or(&flag)))
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals if context(ContextKind::InvalidValue).is_empty() => {
            usage(needs_argument(&context(ContextKind::InvalidArg), &words))
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let value = context(ContextKind::InvalidValue);
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            if let Some(bare) = reason.strip_prefix(BARE) {
                return format!("error: {bare}\n");
            }
            let reason = match reason.starts_with("strconv") || reason.starts_with("time") {
                true => reason,
                false => format!("strconv.ParseInt: parsing {value:?}: {}", number_reason(&value)),
            };
            let name = with_short(known, &context(ContextKind::InvalidArg));
            usage(format!("invalid argument {value:?} for {name:?} flag: {reason}"))
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand);
            let known = words.iter().position(|known| *known == word).unwrap_or(words.len());
            let more = words[known..].iter().take_while(|word| !word.starts_with('-'));
            let more = more.map(String::as_str).collect::<Vec<_>>().join(" ");
            unknown_command(command, &verb(command, &words[..known]).0, &word, &more)
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            usage(first)
        }
    }
}

/// The command that a line means, as far as it does, with its full name.
fn verb<'a>(command: &'a Command, words: &[String]) -> (String, &'a Command) {
    let (mut path, mut here) = (command.get_name().to_owned(), command);
    for word in words.iter().skip(1).take_while(|word| *word != "--") {
        if let Some(next) = here.find_subcommand(word) {
            path = format!("{path} {}", next.get_name());
            here = next;
        }
    }
    (path, here)
}

/// `--output <OUTPUT>` of clap's complaint, as `-o, --output`.
fn with_short(command: &Command, argument: &str) -> String {
    let long = argument.split([' ', '[', '=', '<']).next().unwrap_or(argument);
    let name = long.trim_start_matches('-');
    let found = command.get_arguments().find(|known| known.get_long() == Some(name));
    match found.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, {long}"),
        None => long.to_owned(),
    }
}

fn needs_argument(argument: &str, words: &[String]) -> String {
    let long = argument.split([' ', '[', '=', '<']).next().unwrap_or(argument);
    match words.last().filter(|last| last.starts_with('-') && !last.starts_with("--")) {
        Some(last) => {
            let letter = last.chars().next_back().unwrap_or('-');
            format!("flag needs an argument: {letter:?} in {last}")
        }
        None => format!("flag needs an argument: {long}"),
    }
}

/// Why Go reads no number in a text.
fn number_reason(text: &str) -> &'static str {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    match !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => "value out of range",
        false => "invalid syntax",
    }
}

fn unknown_command(command: &Command, path: &str, word: &str, more: &str) -> String {
    if path == format!("{} create", command.get_name()) {
        return format!("error: Unexpected args: [{more}]\nSee '{path} -h' for help and examples\n");
    }
    if path != command.get_name() {
        return format!("error: unknown command {word:?}\nSee '{path} -h' for help and examples\n");
    }
    let mut text = format!("error: unknown command {word:?} for {path:?}\n");
    let similar: Vec<&str> = command
        .get_subcommands()
        .map(Command::get_name)
        .filter(|name| distance(word, name) <= 2 || name.to_lowercase().starts_with(&word.to_lowercase()))
        .collect();
    if !similar.is_empty() {
        text.push_str("\nDid you mean this?\n");
        similar.iter().for_each(|name| text.push_str(&format!("\t{name}\n")));
    }
    text
}

/// How many letters have to change for one word to become the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.to_lowercase().chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let change = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn values_as_go_reads_them() {
        assert_eq!((boolean("T"), boolean("0")), (Ok(true), Ok(false)));
        assert!(boolean("yes").is_err());
        assert_eq!(seconds("-1s"), Ok(-1.0));
        assert_eq!(seconds("1m30s"), Ok(90.0));
        assert_eq!(seconds("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(seconds("x").unwrap_err(), "time: invalid duration \"x\"");
    }

    #[test]
    fn words_are_compared() {
        assert_eq!((distance("gett", "get"), distance("nope", "top"), distance("", "ab")), (1, 2, 2));
    }
}
