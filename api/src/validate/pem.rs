//! Certificates and requests for them, as PEM in objects.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

const REQUEST: &str = "CERTIFICATE REQUEST";
const CERTIFICATE: &str = "CERTIFICATE";

/// What is wrong with a request for a certificate: its form, or its signature. Signatures of kinds that nothing here can check
/// are left to who signs.
pub(super) fn request(pem: &[u8]) -> Result<(), String> {
    let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok).filter(|block| block.label == REQUEST);
    let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let (rest, request) = X509CertificationRequest::from_der(&block.contents).map_err(|error| match error {
        x509_parser::nom::Err::Incomplete(_) => "asn1: syntax error: data truncated".to_owned(),
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => {
            format!("asn1: structure error: {error}")
        }
    })?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".to_owned());
    }
    match request.verify_signature() {
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => Ok(()),
        Err(_) => Err("x509: the signature of the request does not verify with its key".to_owned()),
    }
}

/// What is wrong with a chain of certificates.
pub(super) fn certificates(pem: &[u8]) -> Result<(), String> {
    let mut count = 0;
    for block in Pem::iter_from_buffer(pem) {
        let Ok(block) = block else { break };
        if block.label != CERTIFICATE {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        count += 1;
        match block.parse_x509() {
            Ok(_) => {}
            Err(error) => return Err(format!("x509: malformed certificate: {error}")),
        }
    }
    if count == 0 { Err("must contain at least one CERTIFICATE PEM block".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHGMG4CAQAwDDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA
BIPlWuR5APZbVNqaALu+WOyKF95kWMapmUDHFebaLRVArd2xIV9RpFcuFMymJYZg
CdBxO/8/I1y6IVU+U4rOkY6gADAKBggqhkjOPQQDAgNIADBFAiBATvRb9ZCy4XMf
tpiH9WgsNGAnSSOl5J+toCcbJFm1lAIhAPAYKnyuWVwH33FcI3+J/OHQ8MB6TGyC
cRQtqeCKrAxD
-----END CERTIFICATE REQUEST-----
";
    /// Of a key that cannot be checked here.
    const P521: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIIBTzCBsQIBADAMMQowCAYDVQQDDAFwMIGbMBAGByqGSM49AgEGBSuBBAAjA4GG
AAQAPn7yGrzydsgNPbTDyQ4vg4httab26S5nKpVSe91KGiDsJqhxpdBrFXVPt2vk
8bb60i45UgQnCickcSKNROfKgaYAwycVHZCd8x9NNrJbqj+SRTAlcH7nZKDk8+Vh
YEvoXrS/HDZa2jgAllsQA7cvYwGZ452qkHbtEF+qRGImz+sTSqSgADAKBggqhkjO
PQQDAgOBjAAwgYgCQgH+sM+r53CxJS2O6gsxlMucW1GZJ6DUvXUJHjDlG1jPZyEa
rLVTwugDlMp15oSPCgu0Lspx8g+EESrM6QYxXEnyMwJCAZejgTr1fsHw0odIgLBu
iTgxdhmHtL0Nu/gg2CDS4fy1Zn1QLKg0V61wgswpLoD1t/U2ztZWm6v2o8GSmZBb
vHfC
-----END CERTIFICATE REQUEST-----
";
    const RSA: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIICUTCCATkCAQAwDDEKMAgGA1UEAwwBcjCCASIwDQYJKoZIhvcNAQEBBQADggEP
ADCCAQoCggEBAK1fKG4Prw14vJxsiarvDZHk4FR6yE5xFMdaS1H5ifYlDMlaeL6G
ZpecVhB+61/lBZoj99rlg15gLFXvVpJe7yVw3XYh+NQF7ujGInzXh+5Gy2VpcpwM
j6BF0EY3LVW8qFhdl0AxspFfANyj70NBMwMGNdzc+DKOirBjOo09rTxq8k1bslI2
x6p6QU33NSNlzPEhgfmELnTwmc4N/4ZgbludxSJZG26ZxuHpez5jj76F5cTDy1Ho
z7a5xp6n+vC0vRSF04KK7hG8k/VqPjH0DsfBFNUEv0bGGluxSxkVZ9pKHN76jt+w
zHJWc+awJ7lndiTbPXoLD8Ql4+AYGXxWsH0CAwEAAaAAMA0GCSqGSIb3DQEBCwUA
A4IBAQAgvQRewWatevApBuv1OESGerY52qjgCRm6KDUDtDKWGcGsBCnJmkhCJiLK
+93qG6CISZ0FgHivhjW5eMe7B3zlvvQQBMeXDr59lvxc0H7o5w6WFbpOqeuPVYS3
bv87UpoLdYsV9DDWra4N1ztt6FTRBkbswsxFFrJiQWU7JnVSsnvno2dHZXsS7xDG
cvXBHTqfDT221fI0CcyoIGurVV7ZbQyM1ZY+t3fl9di0SAes8ZWDof2zqX8CO9aO
sq50onY23uXhqyAp/Bf3Os/Qn3LpfA3QktwMiPP5yrH5sixWXxV5Valm/X4PqMEW
U5tquCR8e59gzt0sSnMNBD9zxlo4
-----END CERTIFICATE REQUEST-----
";
    const CA: &str = "-----BEGIN CERTIFICATE-----
MIIBbjCCARWgAwIBAgIUQWvcu36Z5MQF1m58KxgN9jES3LMwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCY2EwHhcNMjYxMTIyMDYyNjI5WhcNMzYxMTE5MDYyNjI5WjAN
MQswCQYDVQQDDAJjYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIPlWuR5APZb
VNqaALu+WOyKF95kWMapmUDHFebaLRVArd2xIV9RpFcuFMymJYZgCdBxO/8/I1y6
IVU+U4rOkY6jUzBRMB0GA1UdDgQWBBRXpUCGYC+LLNDJ9B6qJEg85HL8bzAfBgNV
HSMEGDAWgBRXpUCGYC+LLNDJ9B6qJEg85HL8bzAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0cAMEQCIDfrrPNn6PQkYu57HcCvRDEFW+PEUu8/R0zwRzm4f8Q8
AiB2wcYFuljKH336shauuzBEu5E3Ef1SFObRqh1ejeFFJw==
-----END CERTIFICATE-----
";

    #[test]
    fn requests_are_well_formed_and_signed() {
        assert_eq!(request(GOOD.as_bytes()), Ok(()));
        assert_eq!(request(format!("a comment\n{GOOD}").as_bytes()), Ok(()));
        assert_eq!(request(P521.as_bytes()), Ok(()));
        assert_eq!(request(RSA.as_bytes()), Ok(()));
        let kind = Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
        for other in ["", "x", CA, "-----BEGIN CERTIFICATE REQUEST-----"] {
            assert_eq!(request(other.as_bytes()), kind, "{other}");
        }
        // Another name than the one that was signed.
        let body = GOOD.replacen("eDBZ", "eTBZ", 1);
        assert_ne!(body, GOOD);
        let forged = request(body.as_bytes()).unwrap_err();
        assert!(forged.contains("does not verify"), "{forged}");
        let nothing = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n";
        assert!(request(nothing.as_bytes()).unwrap_err().starts_with("asn1: "));
    }

    #[test]
    fn certificates_are_well_formed() {
        assert_eq!(certificates(format!("{CA}{CA}").as_bytes()), Ok(()));
        assert_eq!(certificates(b"x"), Err("must contain at least one CERTIFICATE PEM block".into()));
        let other = certificates(format!("{CA}{GOOD}").as_bytes()).unwrap_err();
        assert_eq!(other, "only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"");
        let nothing = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert!(certificates(nothing.as_bytes()).unwrap_err().starts_with("x509: malformed"));
    }
}
