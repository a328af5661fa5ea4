//! The grammar of label selectors in query parameters, with the errors of upstream's parser.

use super::{Operator, Requirement, SelectorError};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    End,
    Word(String),
    In,
    NotIn,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
}

impl Token {
    fn text(&self) -> String {
        match self {
            Self::End => String::new(),
            Self::Word(word) => word.clone(),
            Self::In => "in".into(),
            Self::NotIn => "notin".into(),
            Self::Open => "(".into(),
            Self::Close => ")".into(),
            Self::Comma => ",".into(),
            Self::Not => "!".into(),
            Self::Equals => "=".into(),
            Self::DoubleEquals => "==".into(),
            Self::NotEquals => "!=".into(),
            Self::Greater => ">".into(),
            Self::Less => "<".into(),
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let mut then = |next: char| chars.next_if_eq(&next).is_some();
        out.push(match c {
            c if c.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '=' if then('=') => Token::DoubleEquals,
            '=' => Token::Equals,
            '!' if then('=') => Token::NotEquals,
            '!' => Token::Not,
            '>' => Token::Greater,
            '<' => Token::Less,
            c => {
                let mut word = String::from(c);
                while let Some(next) = chars.next_if(|c| !c.is_whitespace() && !"(),=!<>".contains(*c)) {
                    word.push(next);
                }
                match word.as_str() {
                    "in" => Token::In,
                    "notin" => Token::NotIn,
                    _ => Token::Word(word),
                }
            }
        });
    }
    out
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut out = Vec::new();
    if parser.tokens.is_empty() {
        return Ok(out);
    }
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Not | Token::In | Token::NotIn => {
                let requirement = parser.requirement();
                out.push(requirement.map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?);
                match parser.next() {
                    Token::End => return Ok(out),
                    Token::Comma => match parser.peek() {
                        Token::Word(_) | Token::Not | Token::In | Token::NotIn => {}
                        other => {
                            return Err(SelectorError(format!(
                                "found '{}', expected: identifier after ','",
                                other.text()
                            )));
                        }
                    },
                    other => {
                        return Err(SelectorError(format!(
                            "found '{}', expected: ',' or 'end of string'",
                            other.text()
                        )));
                    }
                }
            }
            other => {
                return Err(SelectorError(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                )));
            }
        }
    }
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            // Where a key or value is expected, the words of the operators are ordinary words.
            token @ (Token::Word(_) | Token::In | Token::NotIn) => token.text(),
            other => return Err(SelectorError(format!("found '{}', expected: identifier", other.text()))),
        };
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = match self.next() {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals | Token::DoubleEquals => Operator::Equals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            other => {
                let expected = "in, notin, =, ==, !=, gt, lt";
                return Err(SelectorError(format!("found '{}', expected: {expected}", other.text())));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.set()?,
            _ => vec![self.value()?],
        };
        Requirement::new(&key, operator, values)
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Comma => Ok(String::new()),
            token @ (Token::Word(_) | Token::In | Token::NotIn) => {
                self.next();
                Ok(token.text())
            }
            other => Err(SelectorError(format!("found '{}', expected: identifier", other.text()))),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Open => {}
            other => return Err(SelectorError(format!("found '{}' expected: '('", other.text()))),
        }
        let mut values = Vec::new();
        let mut pending = String::new();
        loop {
            match self.next() {
                token @ (Token::Word(_) | Token::In | Token::NotIn) if pending.is_empty() => pending = token.text(),
                Token::Comma => values.push(std::mem::take(&mut pending)),
                Token::Close => {
                    values.push(pending);
                    return Ok(values);
                }
                other => {
                    return Err(SelectorError(format!("found '{}', expected: ',', ')' or identifier", other.text())));
                }
            }
        }
    }
}
