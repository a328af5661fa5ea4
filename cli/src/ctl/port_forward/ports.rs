//! Which local port goes to which port of the pod.

use serde_json::Value;

use super::super::errors::{CtlError, Result};

/// One pair of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Where this process listens; 0 for any.
    pub local: u16,
    /// The pod's.
    pub remote: u16,
}

fn split(word: &str) -> (&str, &str) {
    match word.split(':').collect::<Vec<_>>()[..] {
        [local, remote] => (local, remote),
        _ => word.split_once(':').map_or((word, word), |(first, _)| (first, first)),
    }
}

/// Understands `LOCAL:REMOTE`, `PORT` and `:REMOTE`.
pub fn parse(words: &[String]) -> Result<Vec<Mapping>> {
    words.iter().map(|word| parse_one(word)).collect()
}

fn parse_one(word: &str) -> Result<Mapping> {
    let (local, remote) = match word.split(':').collect::<Vec<_>>()[..] {
        [port] => (port, port),
        ["", remote] => ("0", remote),
        [local, remote] => (local, remote),
        _ => return Err(CtlError::plain(format!("invalid port format '{word}'"))),
    };
    let number = |which: &str, text: &str| {
        text.parse::<u16>().map_err(|_| {
            let why = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
                "value out of range"
            } else {
                "invalid syntax"
            };
            let text = format!("error parsing {which} port '{text}': strconv.ParseUint: parsing {text:?}: {why}");
            CtlError::plain(text)
        })
    };
    let (local, remote) = (number("local", local)?, number("remote", remote)?);
    if remote == 0 {
        return Err(CtlError::plain("remote port must be > 0"));
    }
    Ok(Mapping { local, remote })
}

fn joined(local: &str, remote: &str, number: i64) -> String {
    if local == remote { number.to_string() } else { format!("{local}:{number}") }
}

fn array<'a>(object: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn container_ports(pod: &Value) -> impl Iterator<Item = &Value> {
    array(pod, "/spec/containers").flat_map(|container| array(container, "/ports"))
}

fn pod_port(pod: &Value, name: &str) -> Result<i64> {
    let found = container_ports(pod).find(|port| port["name"] == name).and_then(|port| port["containerPort"].as_i64());
    found.ok_or_else(|| {
        let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
        CtlError::plain(format!("Pod '{pod}' does not have a named port '{name}'"))
    })
}

/// Fails for ports that are declared for UDP alone.
fn refuse_udp<'a>(
    declared: impl Iterator<Item = &'a Value> + Clone,
    field: &str,
    number: i64,
    word: &str,
) -> Result<()> {
    let mut same = declared.filter(|port| port[field].as_i64() == Some(number));
    let protocols: Vec<&str> = same.by_ref().map(|port| port["protocol"].as_str().unwrap_or("TCP")).collect();
    if protocols.contains(&"UDP") && !protocols.contains(&"TCP") {
        return Err(CtlError::plain(format!("UDP protocol is not supported for {word}")));
    }
    Ok(())
}

/// Ports of a pod, with names turned into numbers.
pub fn of_pod(words: &[String], pod: &Value) -> Result<Vec<String>> {
    let one = |word: &String| {
        let (local, remote) = split(word);
        if remote.is_empty() {
            return Err(CtlError::plain("remote port cannot be empty"));
        }
        let Ok(number) = remote.parse::<i64>() else {
            let number = pod_port(pod, remote)?;
            let declared: Vec<&Value> = container_ports(pod).collect();
            refuse_udp(declared.into_iter(), "containerPort", number, remote)?;
            return Ok(joined(local, remote, number));
        };
        let declared: Vec<&Value> = container_ports(pod).collect();
        refuse_udp(declared.into_iter(), "containerPort", number, remote)?;
        // Anything unusual is left to the parser, which says what is wrong.
        Ok(if word.matches(':').count() > 1 { word.clone() } else { joined(local, remote, number) })
    };
    words.iter().map(one).collect()
}

/// Ports of a service, turned into those of the pod behind it.
pub fn of_service(words: &[String], service: &Value, pod: &Value) -> Result<Vec<String>> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let declared: Vec<&Value> = array(service, "/spec/ports").collect();
    let one = |word: &String| {
        let (local, remote) = split(word);
        let (local, number) = match remote.parse::<i64>() {
            Ok(number) => (local.to_owned(), number),
            Err(_) => {
                let found = declared.iter().find(|port| port["name"] == remote).and_then(|port| port["port"].as_i64());
                let number = found.ok_or_else(|| {
                    CtlError::plain(format!("Service '{name}' does not have a named port '{remote}'"))
                })?;
                (if local == remote { number.to_string() } else { local.to_owned() }, number)
            }
        };
        refuse_udp(declared.iter().copied(), "port", number, remote)?;
        let port = declared
            .iter()
            .find(|port| port["port"].as_i64() == Some(number))
            .ok_or_else(|| CtlError::plain(format!("Service {name} does not have a service port {number}")))?;
        let target = match (&port["targetPort"], service["spec"]["clusterIP"] == "None") {
            (_, true) => number,
            (Value::String(target), _) => pod_port(pod, target)?,
            (target, _) => target.as_i64().filter(|target| *target > 0).unwrap_or(number),
        };
        Ok(joined(&local, &target.to_string(), target))
    };
    words.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn ports_as_they_are_typed() {
        let one = |word: &str| parse(&words(&[word])).map(|all| (all[0].local, all[0].remote)).map_err(|e| e.text());
        assert_eq!(one("5000"), Ok((5000, 5000)));
        assert_eq!(one("8888:5000"), Ok((8888, 5000)));
        assert_eq!(one(":5000"), Ok((0, 5000)));
        assert_eq!(one("1:2:3"), Err("error: invalid port format '1:2:3'\n".into()));
        assert_eq!(one("80:0"), Err("error: remote port must be > 0\n".into()));
        let text =
            "error: error parsing remote port '99999': strconv.ParseUint: parsing \"99999\": value out of range\n";
        assert_eq!(one("80:99999"), Err(text.into()));
        assert!(one("a:80").unwrap_err().contains("invalid syntax"));
    }

    #[test]
    fn names_become_numbers() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [
            {"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]}});
        let of = |word: &str| of_pod(&words(&[word]), &pod).map(|all| all[0].clone()).map_err(|error| error.text());
        assert_eq!(of("http").unwrap(), "8080");
        assert_eq!(of("80:http").unwrap(), "80:8080");
        assert_eq!(of(":http").unwrap(), ":8080");
        assert_eq!(of("9:9").unwrap(), "9");
        assert_eq!(of("x").unwrap_err(), "error: Pod 'p' does not have a named port 'x'\n");
        assert_eq!(of("53").unwrap_err(), "error: UDP protocol is not supported for 53\n");
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8081}, {"port": 82}]}});
        let of = |word: &str| {
            of_service(&words(&[word]), &service, &pod).map(|all| all[0].clone()).map_err(|error| error.text())
        };
        assert_eq!(of("80").unwrap(), "80:8080");
        assert_eq!(of("web").unwrap(), "80:8080");
        assert_eq!(of("7:web").unwrap(), "7:8080");
        assert_eq!(of(":81").unwrap(), ":8081");
        assert_eq!(of("82").unwrap(), "82");
        assert_eq!(of("83").unwrap_err(), "error: Service s does not have a service port 83\n");
        assert_eq!(of("x").unwrap_err(), "error: Service 's' does not have a named port 'x'\n");
    }
}
