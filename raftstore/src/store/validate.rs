//! What is refused before it reaches the log.

use std::collections::HashSet;

use crate::config::Limits;
use crate::types::{Compare, Op, StoreError, Txn};

/// Checks a transaction against the limits.
pub(crate) fn txn(txn: &Txn, limits: &Limits) -> Result<(), StoreError> {
    let refuse = |why: String| Err(StoreError::Invalid(why));
    let count = txn.compares.len().max(txn.then.len()).max(txn.otherwise.len());
    if count > limits.max_txn_ops {
        return refuse(format!("{count} operations in a transaction, at most {} are allowed", limits.max_txn_ops));
    }
    let mut bytes = 0;
    for compare in &txn.compares {
        let (key, value) = match compare {
            Compare::ModRevision(key, _) | Compare::CreateRevision(key, _) => (key, 0),
            Compare::Exists(key) | Compare::Absent(key) => (key, 0),
            Compare::Value(key, value) => (key, value.len()),
        };
        bytes += check_key(key, limits)? + value;
    }
    for branch in [&txn.then, &txn.otherwise] {
        bytes += check_branch(branch, limits)?;
    }
    if bytes > limits.max_txn_bytes {
        return refuse(format!("transaction of {bytes} bytes, at most {} are allowed", limits.max_txn_bytes));
    }
    Ok(())
}

fn check_branch(ops: &[Op], limits: &Limits) -> Result<usize, StoreError> {
    let mut changed = HashSet::new();
    let mut bytes = 0;
    for op in ops {
        let key = match op {
            Op::Put { key, value, .. } => {
                if value.len() > limits.max_value_bytes {
                    let (is, max) = (value.len(), limits.max_value_bytes);
                    return Err(StoreError::Invalid(format!("value of {is} bytes, at most {max} are allowed")));
                }
                bytes += value.len();
                key
            }
            Op::Delete { key } | Op::Get { key } => key,
        };
        bytes += check_key(key, limits)?;
        if !matches!(op, Op::Get { .. }) && !changed.insert(key) {
            let key = String::from_utf8_lossy(key);
            return Err(StoreError::Invalid(format!("key {key:?} is changed twice in one transaction")));
        }
    }
    Ok(bytes)
}

fn check_key(key: &[u8], limits: &Limits) -> Result<usize, StoreError> {
    match key.len() {
        0 => Err(StoreError::Invalid("empty key".into())),
        len if len > limits.max_key_bytes => {
            Err(StoreError::Invalid(format!("key of {len} bytes, at most {} are allowed", limits.max_key_bytes)))
        }
        len => Ok(len),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(key: &str, size: usize) -> Op {
        Op::Put { key: key.to_string().into(), value: vec![0; size].into(), expires_at_ms: None }
    }

    #[test]
    fn limits_are_enforced() {
        let limits = Limits { max_txn_ops: 3, max_txn_bytes: 2 << 20, ..Limits::default() };
        let check = |then: Vec<Op>| txn(&Txn { then, ..Txn::default() }, &limits);
        assert!(check(vec![put("a", 1), put("b", 1), Op::Get { key: "a".into() }]).is_ok());
        assert!(check(vec![put("a", 1), put("a", 1)]).is_err(), "a key twice");
        assert!(check(vec![put("", 1)]).is_err(), "no key");
        assert!(check(vec![put(&"k".repeat(5000), 1)]).is_err(), "long key");
        assert!(check(vec![put("a", (3 << 19) + 1)]).is_err(), "long value");
        assert!(check(vec![put("a", 3 << 19)]).is_ok(), "longest value");
        assert!(check(vec![put("a", 3 << 19), put("b", 3 << 19)]).is_err(), "too many bytes");
        assert!(check((0..4).map(|i| put(&i.to_string(), 1)).collect()).is_err(), "too many operations");
    }
}
