//! Query parameters.

use super::info::decode_bytes;

/// Parsed query string; the first value of a name counts, as upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_bytes(name, true), decode_bytes(value, true))
        });
        Self(pairs.collect())
    }

    /// The first non-empty value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A boolean as upstream converts it: everything is true but `0` and `false`, which may be written in capitals.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.iter().find(|(n, _)| n == name).is_some_and(|(_, v)| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A tri-state boolean.
    pub(crate) fn option_flag(&self, name: &str) -> Option<bool> {
        self.0.iter().any(|(n, _)| n == name).then(|| self.flag(name))
    }

    /// An integer, or the text that is none.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax (query parameter {name})")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values() {
        let q =
            Query::parse("labelSelector=a%3Db%2Cc&watch=1&x=false&y=False&command=sh&command=-c&limit=5&bad=z&sp=a+b");
        assert_eq!(q.get("labelSelector"), Some("a=b,c"));
        assert!(q.flag("watch") && !q.flag("x") && !q.flag("y") && !q.flag("none"));
        assert_eq!(q.all("command").collect::<Vec<_>>(), ["sh", "-c"]);
        assert_eq!(q.integer("limit").unwrap(), Some(5));
        assert!(q.integer("bad").is_err());
        assert_eq!(q.get("sp"), Some("a b"));
    }
}
