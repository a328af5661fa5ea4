//! The pods and containers that `debug` makes.

use rand::Rng;
use serde_json::{Map, Value, json};

use super::super::change::patched;
use super::super::errors::{CtlError, Result};
use super::super::mutate::STRATEGIC;
use super::super::targets;
use super::profile::{Keep, Profile, Style};

/// What the flags say of the container.
#[derive(Debug, Clone)]
pub struct Maker {
    /// Its image; empty with a copy that only changes others.
    pub image: String,
    /// `imagePullPolicy`, or empty.
    pub pull_policy: String,
    /// Command, or arguments.
    pub words: Vec<String>,
    /// The words are arguments.
    pub arguments_only: bool,
    /// Variables, as the API has them.
    pub env: Vec<Value>,
    /// Its input stays open.
    pub stdin: bool,
    /// It has a terminal.
    pub tty: bool,
    /// Name of it, or of the container of a copy that is changed.
    pub container: String,
    /// Whose processes it sees.
    pub target: String,
    /// New images of a copy's containers, by name.
    pub images: Vec<(String, String)>,
    /// A copy stays on the pod's node.
    pub same_node: bool,
    /// Whether a copy's containers see each other's processes, if that was said.
    pub share_processes: Option<bool>,
    /// Rights of the container.
    pub profile: Profile,
    /// What a copy keeps.
    pub keep: Keep,
    /// Fields that are put over the container's.
    pub custom: Option<Value>,
}

/// A pod with its debugging container.
#[derive(Debug)]
pub struct Made {
    /// The pod.
    pub pod: Value,
    /// Name of the container; empty if there is none to look at.
    pub container: String,
}

/// Five letters that make a name unique.
pub fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

impl Maker {
    /// A container of this name.
    fn fresh(&self, name: &str) -> Map<String, Value> {
        let mut container = Map::new();
        let mut set = |field: &str, value: Value| container.insert(field.to_owned(), value);
        set("name", json!(name));
        set("image", json!(self.image));
        if !self.words.is_empty() {
            set(if self.arguments_only { "args" } else { "command" }, json!(self.words));
        }
        if !self.env.is_empty() {
            set("env", json!(self.env));
        }
        set("resources", json!({}));
        set("terminationMessagePolicy", json!("File"));
        if !self.pull_policy.is_empty() {
            set("imagePullPolicy", json!(self.pull_policy));
        }
        if self.stdin {
            set("stdin", json!(true));
        }
        if self.tty {
            set("tty", json!(true));
        }
        container
    }

    /// The pod with an ephemeral container more.
    pub fn for_pod(&self, pod: &Value, name: &str) -> Result<Made> {
        let mut container = self.fresh(name);
        if !self.target.is_empty() {
            container.insert("targetContainerName".to_owned(), json!(self.target));
        }
        let mut after = pod.clone();
        let before = pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
        after["spec"]["ephemeralContainers"] = json!([before, vec![Value::Object(container)]].concat());
        self.profile.apply(&self.keep, &mut after, name, Style::Ephemeral);
        let pod = self.customized(after, "ephemeralContainers", name)?;
        Ok(Made { pod, container: name.to_owned() })
    }

    /// A pod that looks at a node.
    pub fn for_node(&self, node: &str, name: &str, container: &str) -> Result<Value> {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "kubectl-debug"}},
            "spec": {
                "containers": [self.fresh(container)], "nodeName": node, "restartPolicy": "Never",
                "tolerations": [{"operator": "Exists"}],
            },
        });
        self.profile.apply(&self.keep, &mut pod, container, Style::Node);
        self.customized(pod, "containers", container)
    }

    /// Whether a copy of the pod gets a container more.
    pub fn adds_container(&self, pod: &Value) -> bool {
        let known = super::super::pods::containers(pod).contains(&self.container);
        !known && !self.image.is_empty()
    }

    /// A copy of the pod; `new` is the name of a container that is added.
    pub fn copy(&self, pod: &Value, name: &str, new: &str) -> Result<Made> {
        let mut copy = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]});
        for field in ["namespace", "labels", "annotations"] {
            if !pod["metadata"][field].is_null() {
                copy["metadata"][field] = pod["metadata"][field].clone();
            }
        }
        let spec = &mut copy["spec"];
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("ephemeralContainers");
            if !self.same_node {
                spec.remove("nodeName");
            }
        }
        if let Some(share) = self.share_processes {
            spec["shareProcessNamespace"] = json!(share);
        }
        self.set_images(spec);
        let known = super::super::pods::containers(&copy).contains(&self.container);
        if !known && self.image.is_empty() {
            if !self.images.is_empty() {
                return Ok(Made { pod: copy, container: String::new() });
            }
            return Err(CtlError::plain("you must specify image when creating new container"));
        }
        let container = if known { self.container.clone() } else { new.to_owned() };
        match known {
            true => self.change(&mut copy["spec"], &container),
            false => {
                let all = copy["spec"]["containers"].as_array().cloned().unwrap_or_default();
                copy["spec"]["containers"] = json!([all, vec![Value::Object(self.fresh(&container))]].concat());
            }
        }
        self.profile.apply(&self.keep, &mut copy, &container, Style::Copy);
        let pod = self.customized(copy, "containers", &container)?;
        Ok(Made { pod, container })
    }

    fn set_images(&self, spec: &mut Value) {
        let of = |wanted: &str| self.images.iter().rev().find(|(name, _)| name == wanted).map(|(_, image)| image);
        for container in spec["containers"].as_array_mut().into_iter().flatten() {
            let own = container["name"].as_str().and_then(of);
            if let Some(image) = own.or_else(|| of("*")) {
                container["image"] = json!(image);
            }
        }
    }

    /// Changes a container that the pod has.
    fn change(&self, spec: &mut Value, name: &str) {
        let Some(spec) = spec.as_object_mut() else { return };
        let all = spec.iter_mut().filter(|(field, _)| matches!(field.as_str(), "containers" | "initContainers"));
        let mut all = all.flat_map(|(_, list)| list.as_array_mut().into_iter().flatten());
        let Some(container) = all.find(|container| container["name"] == name) else { return };
        if !self.words.is_empty() {
            let (field, other) = if self.arguments_only { ("args", "") } else { ("command", "args") };
            container[field] = json!(self.words);
            container.as_object_mut().and_then(|fields| fields.remove(other));
        }
        if !self.env.is_empty() {
            container["env"] = json!(self.env);
        }
        for (field, value) in [("image", &self.image), ("imagePullPolicy", &self.pull_policy)] {
            if !value.is_empty() {
                container[field] = json!(value);
            }
        }
        container["stdin"] = json!(self.stdin);
        container["tty"] = json!(self.tty);
    }

    /// The pod with the custom fields over those of its container.
    fn customized(&self, pod: Value, list: &str, container: &str) -> Result<Value> {
        let Some(custom) = &self.custom else { return Ok(pod) };
        let mut fields = custom.clone();
        fields["name"] = json!(container);
        let target = targets::of_object(&targets::guess(&pod).into(), pod.clone());
        patched(&target, &pod, STRATEGIC, &json!({"spec": {list: [fields]}}))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn maker() -> Maker {
        Maker {
            image: "busybox".into(),
            pull_policy: String::new(),
            words: Vec::new(),
            arguments_only: false,
            env: Vec::new(),
            stdin: false,
            tty: false,
            container: String::new(),
            target: String::new(),
            images: Vec::new(),
            same_node: false,
            share_processes: None,
            profile: Profile::General,
            keep: Keep { init_containers: true, ..Keep::default() },
            custom: None,
        }
    }

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"},
               "spec": {"nodeName": "w", "containers": [{"name": "a", "image": "x", "args": ["1"]}],
                        "ephemeralContainers": [{"name": "e", "image": "x"}]}})
    }

    #[test]
    fn a_pod_gets_one_container_more() {
        let made = Maker { target: "a".into(), stdin: true, ..maker() }.for_pod(&pod(), "d").unwrap();
        let all = made.pod["spec"]["ephemeralContainers"].as_array().unwrap();
        assert_eq!((all.len(), &all[1]["targetContainerName"], &all[1]["stdin"]), (2, &json!("a"), &json!(true)));
        assert_eq!(made.pod["spec"]["containers"], pod()["spec"]["containers"]);
    }

    #[test]
    fn copies_are_free_to_run_anywhere() {
        let maker = maker();
        assert!(maker.adds_container(&pod()));
        let made = maker.copy(&pod(), "c", "d").unwrap();
        assert_eq!(made.container, "d");
        assert_eq!(made.pod["metadata"], json!({"name": "c", "namespace": "n"}));
        assert!(made.pod["spec"].get("nodeName").is_none() && made.pod["spec"].get("ephemeralContainers").is_none());
        assert_eq!(made.pod["spec"]["containers"].as_array().unwrap().len(), 2);
        let stays = Maker { same_node: true, ..maker }.copy(&pod(), "c", "d").unwrap();
        assert_eq!(stays.pod["spec"]["nodeName"], "w");
    }

    #[test]
    fn a_copys_container_can_be_changed() {
        let change = Maker { image: String::new(), container: "a".into(), words: vec!["sh".into()], ..maker() };
        assert!(!change.adds_container(&pod()));
        let made = change.copy(&pod(), "c", "").unwrap();
        let container = &made.pod["spec"]["containers"][0];
        assert_eq!(
            (&container["command"], container.get("args"), &container["image"]),
            (&json!(["sh"]), None, &json!("x"))
        );
        let images = Maker { image: String::new(), images: vec![("*".into(), "new".into())], ..maker() };
        let made = images.copy(&pod(), "c", "").unwrap();
        assert_eq!((made.container.as_str(), &made.pod["spec"]["containers"][0]["image"]), ("", &json!("new")));
        let none = Maker { image: String::new(), container: "nope".into(), words: vec!["sh".into()], ..maker() };
        assert!(none.copy(&pod(), "c", "").is_err());
    }

    #[test]
    fn custom_fields_are_merged_into_the_container() {
        let custom = json!({"securityContext": {"runAsUser": 0}, "env": [{"name": "A", "value": "b"}]});
        let made = Maker { custom: Some(custom), ..maker() }.for_pod(&pod(), "d").unwrap();
        let container = &made.pod["spec"]["ephemeralContainers"][1];
        assert_eq!(container["securityContext"], json!({"capabilities": {"add": ["SYS_PTRACE"]}, "runAsUser": 0}));
        assert_eq!(container["env"][0]["value"], "b");
        assert_eq!(suffix().len(), 5);
    }
}
