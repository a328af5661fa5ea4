//! The parser of jsonpath templates.

use serde_json::Value;

use super::jsonpath::{Comparison, Operand, Path, Piece, Step};

type Parsed<T> = Result<T, String>;

pub(super) struct Parser {
    text: Vec<char>,
    at: usize,
}

/// How a list of pieces came to its end.
#[derive(PartialEq)]
enum Ending {
    Text,
    End,
}

/// A member of a bracket.
enum Member {
    Quoted(String),
    Step(Step),
}

impl Member {
    /// In a union, dots in quoted texts separate fields; alone, such a text is one name.
    fn in_union(self) -> Vec<Step> {
        match self {
            Member::Quoted(text) => text.split('.').map(|name| Step::Field(name.to_owned())).collect(),
            Member::Step(step) => vec![step],
        }
    }
}

impl Parser {
    pub fn new(text: &str) -> Parser {
        Parser { text: text.chars().collect(), at: 0 }
    }

    /// A template up to the end of the text.
    pub fn template(&mut self) -> Parsed<Vec<Piece>> {
        let mut all = Vec::new();
        loop {
            let (pieces, ending) = self.pieces()?;
            all.extend(pieces);
            if ending == Ending::Text {
                return Ok(all);
            }
            all.push(Piece::StrayEnd);
        }
    }

    /// A path that is the whole text.
    pub fn whole_path(&mut self) -> Parsed<Path> {
        let path = self.path(&[])?;
        if self.at < self.text.len() { Err(self.unexpected()) } else { Ok(path) }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let matches = wanted.chars().enumerate().all(|(index, c)| self.text.get(self.at + index) == Some(&c));
        if matches {
            self.at += wanted.chars().count();
        }
        matches
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn unexpected(&self) -> String {
        match self.peek() {
            Some(c) => format!("unrecognized character in action: U+{:04X} '{c}'", u32::from(c)),
            None => "unclosed action".to_owned(),
        }
    }

    fn pieces(&mut self) -> Parsed<(Vec<Piece>, Ending)> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            if c != '{' {
                text.push(c);
                continue;
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            if self.action(&mut pieces)? == Ending::End {
                return Ok((pieces, Ending::End));
            }
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok((pieces, Ending::Text))
    }

    /// What stands between braces.
    fn action(&mut self, pieces: &mut Vec<Piece>) -> Parsed<Ending> {
        loop {
            self.spaces();
            match self.peek() {
                None => return Err("unclosed action".to_owned()),
                Some('}') => {
                    self.at += 1;
                    return Ok(Ending::Text);
                }
                Some(quote @ ('"' | '\'')) => pieces.push(Piece::Text(self.quoted(quote)?)),
                Some('r') if self.keyword("range") => {
                    self.spaces();
                    let path = self.path(&['}'])?;
                    self.close()?;
                    // A missing end is no mistake: the rest of the template is the body.
                    let (body, _) = self.pieces()?;
                    pieces.push(Piece::Range(path, body));
                    return Ok(Ending::Text);
                }
                Some('e') if self.keyword("end") => {
                    self.close()?;
                    return Ok(Ending::End);
                }
                Some(_) => pieces.push(Piece::Path(self.path(&['}'])?)),
            }
        }
    }

    fn keyword(&mut self, word: &str) -> bool {
        let after = self.text.get(self.at + word.len());
        let ends = after.is_none_or(|c| !c.is_alphanumeric() && *c != '_');
        ends && self.eat(word)
    }

    fn close(&mut self) -> Parsed<()> {
        self.spaces();
        if self.eat("}") { Ok(()) } else { Err(self.unexpected()) }
    }

    fn quoted(&mut self, quote: char) -> Parsed<String> {
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                c if c == quote => return Ok(text),
                '\\' => {
                    let escaped = self.peek().ok_or("unterminated quoted string")?;
                    self.at += 1;
                    text.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    });
                }
                c => text.push(c),
            }
        }
        Err("unterminated quoted string".to_owned())
    }

    /// A path up to one of `stops`, a space, or something that cannot belong to it.
    fn path(&mut self, stops: &[char]) -> Parsed<Path> {
        let mut steps = Vec::new();
        let begin = self.at;
        if self.eat("$") {
            steps.push(Step::Root);
        } else if self.eat("@") {
            // The current value is where every path starts.
        } else if self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '*') {
            let step = self.name()?;
            steps.push(step);
        }
        loop {
            match self.peek() {
                Some(c) if stops.contains(&c) || c.is_whitespace() => break,
                Some('.') => {
                    self.at += 1;
                    if self.eat(".") {
                        steps.push(Step::Descend);
                        if self.peek() == Some('[') {
                            continue;
                        }
                        let step = self.name()?;
                        steps.push(step);
                    } else if self.peek().is_some_and(|c| c != '[' && c != '}' && !c.is_whitespace() && c != ')') {
                        let step = self.name()?;
                        steps.push(step);
                    }
                }
                Some('[') => {
                    self.at += 1;
                    let step = self.bracket()?;
                    steps.push(step);
                }
                None => break,
                Some(_) => return Err(self.unexpected()),
            }
        }
        if self.at == begin { Err(self.unexpected()) } else { Ok(Path { steps }) }
    }

    fn name(&mut self) -> Parsed<Step> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.at += 1;
                    name.extend(self.peek());
                }
                '.' | '[' | ']' | '}' | ')' | '=' | '<' | '>' | '!' | ',' | '"' | '\'' | ' ' | '|' | '&' => break,
                c => name.push(c),
            }
            self.at += 1;
        }
        match name.as_str() {
            "" => Err(self.unexpected()),
            "*" => Ok(Step::All),
            _ => Ok(Step::Field(name)),
        }
    }

    /// What stands between square brackets.
    fn bracket(&mut self) -> Parsed<Step> {
        self.spaces();
        if self.eat("?(") {
            return self.filter();
        }
        let mut parts = Vec::new();
        loop {
            self.spaces();
            if matches!(self.peek(), None | Some('}')) {
                return Err("unterminated array".to_owned());
            }
            parts.push(self.selector()?);
            self.spaces();
            if self.eat("]") {
                break;
            }
            if !self.eat(",") {
                return Err("unterminated array".to_owned());
            }
        }
        if parts.len() > 1 {
            return Ok(Step::Union(parts.into_iter().map(Member::in_union).collect()));
        }
        match parts.pop() {
            Some(Member::Quoted(name)) => Ok(Step::Field(name)),
            Some(Member::Step(step)) => Ok(step),
            None => Err("invalid array index".to_owned()),
        }
    }

    /// One member of a bracket: `*`, `'a.b'`, `n` or `from:to:step`.
    fn selector(&mut self) -> Parsed<Member> {
        match self.peek() {
            Some('*') => {
                self.at += 1;
                Ok(Member::Step(Step::All))
            }
            Some(quote @ ('\'' | '"')) => self.quoted(quote).map(Member::Quoted),
            Some(c) if c.is_ascii_digit() || c == '-' || c == ':' => self.range().map(Member::Step),
            _ => Err("invalid array index".to_owned()),
        }
    }

    fn range(&mut self) -> Parsed<Step> {
        let mut numbers = vec![self.number()?];
        while self.eat(":") {
            numbers.push(self.number()?);
        }
        match numbers.as_slice() {
            [Some(index)] => Ok(Step::Index(*index)),
            [from, to] => Ok(Step::Slice(*from, *to, 1)),
            [from, to, step] => Ok(Step::Slice(*from, *to, step.unwrap_or(1))),
            _ => Err("invalid array index".to_owned()),
        }
    }

    fn number(&mut self) -> Parsed<Option<i64>> {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_digit() || *c == '-') {
            text.push(c);
            self.at += 1;
        }
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| format!("invalid array index {text}"))
    }

    fn filter(&mut self) -> Parsed<Step> {
        self.spaces();
        let left = self.operand()?;
        self.spaces();
        let operators = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let mut comparison = None;
        for (text, operator) in operators {
            if self.eat(text) {
                self.spaces();
                comparison = Some((operator, self.operand()?));
                self.spaces();
                break;
            }
        }
        if self.eat(")]") { Ok(Step::Filter(left, comparison)) } else { Err("unterminated filter".to_owned()) }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        match self.peek() {
            Some(quote @ ('\'' | '"')) => Ok(Operand::Value(Value::String(self.quoted(quote)?))),
            Some('@' | '$' | '.') => self.path(&[')', '=', '!', '<', '>']).map(Operand::Path),
            _ => {
                let mut text = String::new();
                while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '+')) {
                    text.push(c);
                    self.at += 1;
                }
                let value = serde_json::from_str(&text).map_err(|_| format!("unrecognized operand {text:?}"))?;
                Ok(Operand::Value(value))
            }
        }
    }
}
