//! Texts in requests and objects: selectors, quantities, times and names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trireme_api::selector::{FieldSelector, LabelSelector};
use trireme_api::{Catalogue, Quantity, names, time};

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        let shown = selector.to_string();
        assert_eq!(LabelSelector::parse(&shown).map(|again| again.to_string()).ok(), Some(shown));
    }
    if let Some(pods) = Catalogue::builtin().resource("", "v1", "pods") {
        let _ = FieldSelector::parse(&pods, text);
    }
    let _ = (FieldSelector::parse_any(text), time::parse(text), names::qualified_name(text));
    if let Ok(quantity) = Quantity::parse(text) {
        assert!(Quantity::parse(&quantity.to_string()).is_ok());
    }
});
