//! From a template's text to a tree.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::funcs;

/// A template with those that it defines.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// What is filled.
    pub root: Vec<Node>,
    /// `{{define}}` and `{{block}}`.
    pub defined: HashMap<String, Vec<Node>>,
}

/// A piece of a template.
#[derive(Debug, Clone)]
pub enum Node {
    /// Text as it stands.
    Text(String),
    /// `{{pipeline}}`
    Action(Pipe),
    /// `{{if}}`
    If(Pipe, Vec<Node>, Vec<Node>),
    /// `{{range}}`
    Range(Pipe, Vec<Node>, Vec<Node>),
    /// `{{with}}`
    With(Pipe, Vec<Node>, Vec<Node>),
    /// `{{template "name" pipeline}}`
    Template(String, Option<Pipe>),
    /// `{{break}}`
    Break,
    /// `{{continue}}`
    Continue,
}

/// Commands whose results go on to the next one.
#[derive(Debug, Clone, Default)]
pub struct Pipe {
    /// Variables that take the result.
    pub variables: Vec<String>,
    /// `:=` rather than `=`.
    pub declares: bool,
    /// The commands: operands each.
    pub commands: Vec<Vec<Operand>>,
}

/// A word of a command.
#[derive(Debug, Clone)]
pub struct Operand {
    /// What it is.
    pub term: Term,
    /// Fields taken of it.
    pub fields: Vec<String>,
    /// Where it stands.
    pub at: usize,
    /// How it reads.
    pub text: String,
}

/// What an operand starts with.
#[derive(Debug, Clone)]
pub enum Term {
    /// `.`
    Dot,
    /// `$name`
    Variable(String),
    /// A constant.
    Constant(Value),
    /// A function's name.
    Function(String),
    /// `(pipeline)`
    Pipe(Box<Pipe>),
}

type Parsed<T> = Result<T, (usize, String)>;

/// Parses a template; a failure carries its line.
pub fn parse(source: &str) -> Parsed<Tree> {
    let mut parser =
        Parser { source, at: 0, trim: false, variables: vec!["$".to_owned()], tree: Tree::default(), loops: 0 };
    let (root, ending) = parser.nodes()?;
    match ending {
        Ending::File => Ok(Tree { root, ..parser.tree }),
        Ending::End => parser.fail("unexpected {{end}}"),
        Ending::Else => parser.fail("unexpected {{else}}"),
    }
}

/// How a list of nodes came to its end.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    File,
    End,
    /// The parser stands behind the word `else`.
    Else,
}

struct Parser<'a> {
    source: &'a str,
    at: usize,
    /// The last action ended in ` -}}`.
    trim: bool,
    variables: Vec<String>,
    tree: Tree,
    loops: usize,
}

impl Parser<'_> {
    fn fail<T>(&self, reason: impl Into<String>) -> Parsed<T> {
        Err((1 + self.source[..self.at.min(self.source.len())].matches('\n').count(), reason.into()))
    }

    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn eat(&mut self, text: &str) -> bool {
        let there = self.rest().starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    fn spaces(&mut self) -> bool {
        let rest = self.rest();
        let skipped = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at += skipped;
        skipped > 0
    }

    fn nodes(&mut self) -> Parsed<(Vec<Node>, Ending)> {
        let mut nodes = Vec::new();
        loop {
            let open = self.rest().find("{{");
            let text = &self.rest()[..open.unwrap_or(self.rest().len())];
            let length = text.len();
            let mut text = if self.trim { text.trim_start() } else { text }.to_owned();
            self.trim = false;
            self.at += length;
            let trims_left = self.rest().starts_with("{{-") && self.rest()[3..].starts_with([' ', '\t', '\r', '\n']);
            if trims_left {
                text.truncate(text.trim_end().len());
            }
            if !text.is_empty() {
                nodes.push(Node::Text(text));
            }
            if open.is_none() {
                return Ok((nodes, Ending::File));
            }
            self.at += if trims_left { 3 } else { 2 };
            if let Some(ending) = self.action(&mut nodes)? {
                return Ok((nodes, ending));
            }
        }
    }

    /// What stands behind `{{`.
    fn action(&mut self, nodes: &mut Vec<Node>) -> Parsed<Option<Ending>> {
        self.spaces();
        if self.eat("/*") {
            let Some(end) = self.rest().find("*/") else { return self.fail("unclosed comment") };
            self.at += end + 2;
            return if self.close() { Ok(None) } else { self.fail("comment ends before closing delimiter") };
        }
        match self.keyword() {
            "end" => return self.closed(Some(Ending::End)),
            "else" => {
                self.spaces();
                return Ok(Some(Ending::Else));
            }
            "break" | "continue" if self.loops == 0 => return self.fail("{{break}} outside {{range}}"),
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "if" => return self.branch("if", nodes).map(|()| None),
            "range" => return self.branch("range", nodes).map(|()| None),
            "with" => return self.branch("with", nodes).map(|()| None),
            "template" => {
                let (name, pipe) = self.named()?;
                nodes.push(Node::Template(name, pipe));
                return Ok(None);
            }
            word @ ("define" | "block") => {
                let (name, pipe) = self.named()?;
                let (body, ending) = self.nodes()?;
                if ending != Ending::End {
                    return self.fail("unexpected EOF");
                }
                if word == "block" {
                    nodes.push(Node::Template(name.clone(), pipe));
                }
                self.tree.defined.insert(name, body);
                return Ok(None);
            }
            _ => {
                let pipe = self.pipe("command", false)?;
                nodes.push(Node::Action(pipe));
            }
        }
        self.closed(None)
    }

    fn closed(&mut self, ending: Option<Ending>) -> Parsed<Option<Ending>> {
        self.spaces();
        if self.close() { Ok(ending) } else { self.unexpected("command") }
    }

    fn unexpected<T>(&self, context: &str) -> Parsed<T> {
        match self.rest().chars().next() {
            None => self.fail("unclosed action"),
            Some(')') => self.fail("unexpected right paren"),
            Some(c) => self.fail(format!("unexpected {c:?} in {context}")),
        }
    }

    /// The keyword here, which is then behind; nothing if there is none.
    fn keyword(&mut self) -> &'static str {
        let words = ["end", "else", "if", "range", "with", "template", "define", "block", "break", "continue"];
        for word in words {
            let behind = self.rest().strip_prefix(word).map(|rest| rest.chars().next());
            if behind.is_some_and(|next| next.is_none_or(|c| !c.is_alphanumeric() && c != '_')) {
                self.at += word.len();
                return word;
            }
        }
        ""
    }

    fn close(&mut self) -> bool {
        self.spaces();
        if self.rest().starts_with("-}}") && self.behind_space() {
            self.at += 3;
            self.trim = true;
            return true;
        }
        self.eat("}}")
    }

    fn behind_space(&self) -> bool {
        self.source[..self.at].ends_with([' ', '\t', '\r', '\n'])
    }

    fn at_close(&self) -> bool {
        self.rest().starts_with("}}") || (self.rest().starts_with("-}}") && self.behind_space())
    }

    fn named(&mut self) -> Parsed<(String, Option<Pipe>)> {
        self.spaces();
        let name = match self.operand()?.map(|operand| operand.term) {
            Some(Term::Constant(Value::String(name))) => name,
            _ => return self.unexpected("template clause"),
        };
        self.spaces();
        let pipe = if self.at_close() { None } else { Some(self.pipe("template clause", false)?) };
        self.closed(None)?;
        Ok((name, pipe))
    }

    fn branch(&mut self, word: &str, nodes: &mut Vec<Node>) -> Parsed<()> {
        let known = self.variables.len();
        let pipe = self.pipe(word, word == "range")?;
        self.closed(None)?;
        self.loops += usize::from(word == "range");
        let (body, ending) = self.nodes()?;
        self.loops -= usize::from(word == "range");
        let mut other = Vec::new();
        match ending {
            Ending::End => {}
            Ending::File => return self.fail("unexpected EOF"),
            Ending::Else => match self.keyword() {
                // `{{else if}}` nests and shares the end.
                next @ ("if" | "with") => self.branch(next, &mut other)?,
                _ => {
                    self.closed(None)?;
                    let (nodes, ending) = self.nodes()?;
                    if ending != Ending::End {
                        return self.fail("unexpected EOF");
                    }
                    other = nodes;
                }
            },
        }
        self.variables.truncate(known);
        nodes.push(match word {
            "if" => Node::If(pipe, body, other),
            "range" => Node::Range(pipe, body, other),
            _ => Node::With(pipe, body, other),
        });
        Ok(())
    }

    fn pipe(&mut self, context: &str, in_range: bool) -> Parsed<Pipe> {
        let mut pipe = Pipe::default();
        self.spaces();
        self.declarations(&mut pipe, in_range)?;
        loop {
            let command = self.command(context)?;
            if command.is_empty() {
                return match self.rest().is_empty() {
                    true => self.fail("unclosed action"),
                    false => self.fail(format!("missing value for {context}")),
                };
            }
            pipe.commands.push(command);
            self.spaces();
            if !self.eat("|") {
                break;
            }
        }
        if pipe.declares {
            self.variables.extend(pipe.variables.iter().cloned());
        }
        Ok(pipe)
    }

    /// `$a :=`, `$a =`, `$i, $e :=`
    fn declarations(&mut self, pipe: &mut Pipe, in_range: bool) -> Parsed<()> {
        let begin = self.at;
        loop {
            if !self.rest().starts_with('$') {
                break;
            }
            let name = self.word();
            pipe.variables.push(name);
            self.spaces();
            if self.eat(":=") {
                pipe.declares = true;
                return Ok(());
            }
            if self.rest().starts_with('=') {
                self.at += 1;
                return match pipe.variables.iter().find(|name| !self.variables.contains(name)) {
                    Some(unknown) => self.fail(format!("undefined variable {unknown:?}")),
                    None => Ok(()),
                };
            }
            if !(in_range && self.eat(",")) {
                break;
            }
            self.spaces();
        }
        self.at = begin;
        pipe.variables.clear();
        Ok(())
    }

    /// `$name`
    fn word(&mut self) -> String {
        let rest = &self.rest()[1..];
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = self.rest()[..=length].to_owned();
        self.at += length + 1;
        name
    }

    fn command(&mut self, context: &str) -> Parsed<Vec<Operand>> {
        let mut words = Vec::new();
        loop {
            self.spaces();
            if self.at_close() || self.rest().starts_with(['|', ')']) {
                return Ok(words);
            }
            match self.operand()? {
                Some(operand) => words.push(operand),
                None => return self.unexpected(context),
            }
        }
    }

    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let begin = self.at;
        let Some(first) = self.rest().chars().next() else { return self.fail("unclosed action") };
        let term = match first {
            '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                if !self.rest()[1..].starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                    self.at += 1;
                }
                Term::Dot
            }
            '$' => {
                let name = self.word();
                if !self.variables.contains(&name) {
                    return self.fail(format!("undefined variable {name:?}"));
                }
                Term::Variable(name)
            }
            '(' => {
                self.at += 1;
                let pipe = self.pipe("parenthesized pipeline", false)?;
                self.spaces();
                if !self.eat(")") {
                    return self.fail("unclosed left paren");
                }
                Term::Pipe(Box::new(pipe))
            }
            '"' | '`' | '\'' => Term::Constant(self.quoted(first)?),
            c if c.is_ascii_digit() || c == '-' || c == '+' || c == '.' => Term::Constant(self.number()?),
            c if c.is_alphabetic() || c == '_' => self.name()?,
            _ => return Ok(None),
        };
        let (mut fields, mut at) = (Vec::new(), begin);
        while self.rest().starts_with('.') {
            let rest = &self.rest()[1..];
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if length == 0 {
                return self.unexpected("operand");
            }
            // Go blames the second field of a chain, whichever failed.
            if fields.len() == 1 {
                at = self.at;
            }
            fields.push(rest[..length].to_owned());
            self.at += length + 1;
        }
        let text = self.source[begin..self.at].to_owned();
        Ok(Some(Operand { term, fields, at, text }))
    }

    fn name(&mut self) -> Parsed<Term> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = rest[..length].to_owned();
        self.at += length;
        match name.as_str() {
            "true" => Ok(Term::Constant(json!(true))),
            "false" => Ok(Term::Constant(json!(false))),
            "nil" => Ok(Term::Constant(Value::Null)),
            _ if funcs::is_known(&name) => Ok(Term::Function(name)),
            _ => self.fail(format!("function {name:?} not defined")),
        }
    }

    fn number(&mut self) -> Parsed<Value> {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '+' | '-'))
            .unwrap_or(rest.len());
        let text = rest[..length].to_owned();
        self.at += length;
        if let Ok(number) = text.parse::<i64>() {
            return Ok(json!(number));
        }
        if let Some(number) = text.strip_prefix("0x").and_then(|hex| i64::from_str_radix(hex, 16).ok()) {
            return Ok(json!(number));
        }
        text.parse::<f64>().map(|number| json!(number)).or_else(|_| self.fail(format!("bad number syntax: {text:?}")))
    }

    fn quoted(&mut self, quote: char) -> Parsed<Value> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        let mut end = None;
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    end = Some(at + 1);
                    break;
                }
                '\\' if quote != '`' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                '\n' if quote != '`' => break,
                c => text.push(c),
            }
        }
        let Some(end) = end else {
            return self.fail(if quote == '`' {
                "unterminated raw quoted string"
            } else {
                "unterminated quoted string"
            });
        };
        self.at += end;
        Ok(match quote {
            '\'' => json!(text.chars().next().map_or(0, u32::from)),
            _ => Value::String(text),
        })
    }
}
