//! Certificate signing requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::super::print::table::labels;
use super::super::time;
use super::writer::{Page, items, plain};

/// A request, or why what it holds cannot be read.
pub fn describe(page: &mut Page, object: &Value) -> Result<(), String> {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let pem = STANDARD.decode(plain(&spec["request"])).unwrap_or_default();
    let parsed = x509_parser::pem::parse_x509_pem(&pem).ok().map(|(_, pem)| pem);
    let parsed = parsed.filter(|pem| pem.label == "CERTIFICATE REQUEST");
    let parsed = parsed.ok_or("Error parsing CSR: PEM block type must be CERTIFICATE REQUEST")?;
    let (_, request) =
        X509CertificationRequest::from_der(&parsed.contents).map_err(|error| format!("Error parsing CSR: {error}"))?;
    page.field(0, "Name", &plain(&metadata["name"]));
    page.field(0, "Labels", &labels(&metadata["labels"]));
    page.field(0, "Annotations", &labels(&metadata["annotations"]));
    page.created(object);
    page.field(0, "Requesting User", &plain(&spec["username"]));
    page.field_some(0, "Signer", &spec["signerName"]);
    if let Some(seconds) = spec["expirationSeconds"].as_i64() {
        page.field(0, "Requested Duration", &time::human(seconds));
    }
    page.field(0, "Status", &status(object));
    subject(page, &request.certification_request_info.subject);
    alternatives(page, &request);
    Ok(())
}

fn status(object: &Value) -> String {
    let has = |kind: &str| items(&object["status"]["conditions"]).any(|condition| condition["type"] == kind);
    let decided = [("Denied", "Denied"), ("Approved", "Approved")].iter().find(|(kind, _)| has(kind));
    let mut text = decided.map_or("Pending", |(_, text)| text).to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !plain(&object["status"]["certificate"]).is_empty() {
        text.push_str(",Issued");
    }
    text
}

fn list(page: &mut Page, name: &str, values: &[String]) {
    if let Some((first, others)) = values.split_first() {
        page.raw(&format!("\t{name}:\t{first}\n"));
        others.iter().for_each(|other| page.raw(&format!("\t\t{other}\n")));
    }
}

fn subject(page: &mut Page, subject: &X509Name<'_>) {
    let all = |oid: &str| -> Vec<String> {
        let of = subject.iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == oid);
        of.filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
    };
    // The last one counts, as in Go.
    let one = |oid: &str| all(oid).pop().unwrap_or_default();
    page.line(0, "Subject:");
    page.raw(&format!("\tCommon Name:\t{}\n", one("2.5.4.3")));
    page.raw(&format!("\tSerial Number:\t{}\n", one("2.5.4.5")));
    let lists = [
        ("Organization", "2.5.4.10"),
        ("Organizational Unit", "2.5.4.11"),
        ("Country", "2.5.4.6"),
        ("Locality", "2.5.4.7"),
        ("Province", "2.5.4.8"),
        ("StreetAddress", "2.5.4.9"),
        ("PostalCode", "2.5.4.17"),
    ];
    lists.into_iter().for_each(|(name, oid)| list(page, name, &all(oid)));
}

fn alternatives(page: &mut Page, request: &X509CertificationRequest<'_>) {
    let extensions = request.requested_extensions().into_iter().flatten();
    let names: Vec<&GeneralName<'_>> = extensions
        .filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .collect();
    let of = |read: fn(&GeneralName<'_>) -> Option<String>| -> Vec<String> {
        names.iter().filter_map(|name| read(name)).collect()
    };
    let text = |name: &str, read: fn(&GeneralName<'_>) -> Option<String>| (name.to_owned(), of(read));
    let lists = [
        text("DNS Names", |name| if let GeneralName::DNSName(text) = name { Some((*text).to_owned()) } else { None }),
        text(
            "Email Addresses",
            |name| {
                if let GeneralName::RFC822Name(text) = name { Some((*text).to_owned()) } else { None }
            },
        ),
        text("URIs", |name| if let GeneralName::URI(text) = name { Some((*text).to_owned()) } else { None }),
        text("IP Addresses", |name| if let GeneralName::IPAddress(bytes) = name { address(bytes) } else { None }),
    ];
    if lists.iter().all(|(_, values)| values.is_empty()) {
        return;
    }
    page.line(0, "Subject Alternative Names:");
    lists.iter().for_each(|(name, values)| list(page, name, values));
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string());
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_are_told_in_order_of_their_weight() {
        let request = |kinds: &[&str], certificate: &str| {
            let conditions: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
            status(&json!({"status": {"conditions": conditions, "certificate": certificate}}))
        };
        assert_eq!(request(&[], ""), "Pending");
        assert_eq!(request(&["Approved"], "x"), "Approved,Issued");
        assert_eq!(request(&["Approved", "Denied", "Failed"], ""), "Denied,Failed");
    }
}
