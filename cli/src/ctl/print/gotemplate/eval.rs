//! Filling a parsed template.

use serde_json::Value;

use super::Failure;
use super::funcs;
use super::parse::{Node, Operand, Pipe, Term, Tree};
use super::text::{go_value, truth};

/// How deep templates may call each other.
const DEPTH: usize = 100;

/// Fills a template from a value.
pub fn run(tree: &Tree, source: &str, data: &Value, lenient: bool) -> Result<String, Failure> {
    let mut run =
        Run { tree, source, lenient, out: String::new(), variables: vec![("$".to_owned(), data.clone())], depth: 0 };
    match run.nodes(&tree.root, data) {
        Ok(_) => Ok(run.out),
        Err(reason) => Err(Failure { written: run.out, reason }),
    }
}

/// What a list of nodes asks the loop around it to do.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    tree: &'a Tree,
    source: &'a str,
    lenient: bool,
    out: String,
    variables: Vec<(String, Value)>,
    depth: usize,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.out.push_str(&shown(&value));
                }
            }
            Node::If(pipe, body, other) => {
                let known = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = self.nodes(if truth(&value) { body } else { other }, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::With(pipe, body, other) => {
                let known = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = if truth(&value) { self.nodes(body, &value)? } else { self.nodes(other, dot)? };
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Range(pipe, body, other) => return self.range(pipe, body, other, dot),
            Node::Template(name, pipe) => self.template(name, pipe.as_ref(), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn template(&mut self, name: &str, pipe: Option<&Pipe>, dot: &Value) -> Result<(), String> {
        let value = match pipe {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Value::Null,
        };
        let Some(body) = self.tree.defined.get(name) else {
            return Err(format!("template: output: template {name:?} not defined"));
        };
        if self.depth >= DEPTH {
            return Err(format!("template: output: exceeded maximum template depth ({DEPTH})"));
        }
        let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), value.clone())]);
        self.depth += 1;
        self.nodes(body, &value)?;
        self.depth -= 1;
        self.variables = outer;
        Ok(())
    }

    fn range(&mut self, pipe: &Pipe, body: &[Node], other: &[Node], dot: &Value) -> Result<Flow, String> {
        let known = self.variables.len();
        let bare = Pipe { variables: Vec::new(), ..pipe.clone() };
        let over = self.pipe(&bare, dot)?;
        let pairs: Vec<(Value, Value)> = match over {
            Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect(),
            Value::Object(map) => {
                let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
                pairs.sort_by(|left, right| left.0.cmp(&right.0));
                pairs.into_iter().map(|(key, value)| (Value::from(key), value)).collect()
            }
            Value::Number(count) if count.is_i64() => {
                (0..count.as_i64().unwrap_or_default()).map(|at| (Value::from(at), Value::from(at))).collect()
            }
            Value::Null => Vec::new(),
            value => {
                let first = pipe.commands.first().and_then(|command| command.first());
                let (at, text) = first.map_or((0, ""), |operand| (operand.at, operand.text.as_str()));
                return Err(self.place(at, text, &format!("range can't iterate over {}", go_value(&value))));
            }
        };
        if pairs.is_empty() {
            return self.nodes(other, dot);
        }
        for (key, value) in pairs {
            match pipe.variables.as_slice() {
                [one] => self.bind(one, value.clone(), pipe.declares),
                [first, second] => {
                    self.bind(first, key, pipe.declares);
                    self.bind(second, value.clone(), pipe.declares);
                }
                _ => {}
            }
            let flow = self.nodes(body, &value)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn bind(&mut self, name: &str, value: Value, declares: bool) {
        match self.variables.iter_mut().rev().find(|(known, _)| known == name).filter(|_| !declares) {
            Some(slot) => slot.1 = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        let mut last: Option<Value> = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        let value = last.unwrap_or_default();
        for name in &pipe.variables {
            self.bind(name, value.clone(), pipe.declares);
        }
        Ok(value)
    }

    fn command(&mut self, words: &[Operand], dot: &Value, piped: Option<Value>) -> Result<Value, String> {
        let Some(first) = words.first() else { return Ok(Value::Null) };
        let Term::Function(name) = &first.term else {
            if words.len() > 1 || piped.is_some() {
                let reason = format!("can't give argument to non-function {}", first.text);
                return Err(self.place(first.at, &first.text, &reason));
            }
            return self.operand(first, dot);
        };
        let count = words.len() - 1 + usize::from(piped.is_some());
        // Only what decides is looked at.
        if name == "and" || name == "or" {
            let mut value = Value::Null;
            for word in &words[1..] {
                value = self.operand(word, dot)?;
                if truth(&value) == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(piped.unwrap_or(value));
        }
        let mut arguments = Vec::with_capacity(count);
        for word in &words[1..] {
            arguments.push(self.operand(word, dot)?);
        }
        arguments.extend(piped);
        let value = funcs::call(name, &arguments).map_err(|reason| {
            let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
            self.place(first.at, &text, &reason)
        })?;
        self.fields(value, first)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            }
            Term::Constant(value) => value.clone(),
            Term::Pipe(pipe) => self.pipe(pipe, dot)?,
            Term::Function(_) => return self.command(std::slice::from_ref(operand), dot, None),
        };
        self.fields(value, operand)
    }

    fn fields(&self, mut value: Value, operand: &Operand) -> Result<Value, String> {
        for field in &operand.fields {
            value = match value {
                Value::Object(mut map) => match map.remove(field) {
                    Some(value) => value,
                    None if self.lenient => Value::Null,
                    None => {
                        let reason = format!("map has no entry for key {field:?}");
                        return Err(self.place(operand.at, &operand.text, &reason));
                    }
                },
                Value::Null if self.lenient => Value::Null,
                Value::Null => {
                    let reason = format!("nil data; no entry for key {field:?}");
                    return Err(self.place(operand.at, &operand.text, &reason));
                }
                _ => {
                    let reason = format!("can't evaluate field {field} in type interface {{}}");
                    return Err(self.place(operand.at, &operand.text, &reason));
                }
            };
        }
        Ok(value)
    }

    fn place(&self, at: usize, text: &str, reason: &str) -> String {
        let before = &self.source[..at.min(self.source.len())];
        let line = 1 + before.matches('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1);
        let text =
            if text.len() > 20 { format!("{}...", text.chars().take(20).collect::<String>()) } else { text.to_owned() };
        format!("template: output:{line}:{column}: executing \"output\" at <{text}>: {reason}")
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "<no value>".to_owned() } else { go_value(value) }
}
