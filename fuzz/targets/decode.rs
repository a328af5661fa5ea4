//! Bodies of a Pod and a Deployment in any encoding; what is taken goes through everything that happens to a new object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trireme_api::decode::{self, Encoding};
use trireme_api::{Catalogue, FieldValidation};

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let catalogue = Catalogue::builtin();
    let resource = match choice & 1 {
        0 => catalogue.resource("", "v1", "pods"),
        _ => catalogue.resource("apps", "v1", "deployments"),
    };
    let Some(resource) = resource else { return };
    for encoding in [Encoding::Json, Encoding::Yaml, Encoding::Protobuf] {
        let Ok(admitted) = decode::object(&resource, body, encoding, FieldValidation::Warn) else { continue };
        let mut object = admitted.object;
        resource.default(&mut object);
        let _ = resource.validate_create(&object);
        let _ = resource.warnings(&object, None);
        let before = object.clone();
        resource.prepare_update(&mut object, &before, None);
        let _ = resource.validate_update(&object, &before, None);
    }
});
