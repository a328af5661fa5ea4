//! `trictl edit`.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::change::difference;
use super::errors::{CtlError, Result};
use super::get::{hide_managed_fields, show_result};
use super::manifest::{self, Files};
use super::mutate::{self, Mode};
use super::print::{emit, yaml};
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Edit an object in $KUBE_EDITOR or $EDITOR.
#[derive(Debug, Clone, Default, Args)]
pub struct EditArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
}

const HEAD: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n\
# and an empty file will abort the edit. If an error occurs while saving this file will be\n\
# reopened with the relevant failures.\n#\n";

/// Runs the verb.
pub async fn run(session: &Session, args: &EditArgs) -> Result<()> {
    let (found, mut failures) = targets::resolve(session, &args.words, &args.files, &Selection::default()).await?;
    for target in found {
        if let Err(error) = edit_one(session, args, &target).await {
            failures.push(error);
        }
    }
    CtlError::gather(failures)
}

async fn edit_one(session: &Session, args: &EditArgs, target: &Target) -> Result<()> {
    let mut before = target.fetch(session).await?;
    hide_managed_fields(&mut before);
    let mut text = format!("{HEAD}{}", yaml::document(&before));
    let file = tempfile::Builder::new().prefix("trictl-edit-").suffix(".yaml").tempfile()?;
    loop {
        let written = text.clone();
        file.as_file().set_len(0)?;
        std::fs::write(file.path(), &written)?;
        open_editor(file.path())?;
        let edited = std::fs::read_to_string(file.path())?;
        if edited == written {
            return emit("Edit cancelled, no changes made.\n");
        }
        if edited.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            return emit("Edit cancelled, saved file was empty.\n");
        }
        match save(session, args, target, &before, &edited).await {
            Ok(()) => return Ok(()),
            // What was typed is not thrown away: it comes back with the reason on top.
            Err(error) => {
                let reason = error.text();
                std::io::stderr().write_all(reason.as_bytes())?;
                let body: String =
                    edited.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
                let comments: String = reason.lines().map(|line| format!("# {line}\n")).collect();
                text = format!("{HEAD}{comments}#\n{body}");
                if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
                    let kept = std::env::temp_dir().join(format!("trictl-edit-{}.yaml", std::process::id()));
                    std::fs::write(&kept, &edited)?;
                    eprintln!("A copy of your changes has been stored to {:?}", kept.display().to_string());
                    return Err(CtlError::Exit(1));
                }
            }
        }
    }
}

async fn save(session: &Session, args: &EditArgs, target: &Target, before: &Value, edited: &str) -> Result<()> {
    let mut documents = manifest::parse(edited, "edited file");
    let after = match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => document?.object,
        _ => return Err(CtlError::plain("the edited file must hold exactly one object")),
    };
    if after["metadata"]["name"] != before["metadata"]["name"] || after["kind"] != before["kind"] {
        return Err(CtlError::plain("kind and metadata.name cannot be changed"));
    }
    let (patch, content_type) = difference(target, before, &after)?;
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return emit("Edit cancelled, no changes made.\n");
    }
    let result = mutate::patch(session, target, content_type, &patch, &args.mode, "kubectl-edit").await?;
    show_result(target, &result, &args.mode.format()?, &args.mode.done("edited"))
}

fn open_editor(path: &Path) -> Result<()> {
    let editor = ["KUBE_EDITOR", "EDITOR", "VISUAL"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "vi".to_owned());
    // The variable may hold arguments and quotes.
    let status =
        std::process::Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("editor").arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CtlError::plain(format!("there was a problem with the editor {editor:?}: {status}"))),
        Err(error) => Err(CtlError::plain(format!("unable to launch the editor {editor:?}: {error}"))),
    }
}
