//! `trictl edit`.

use std::io::Write;
use std::path::Path;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::api::Call;
use super::change::difference;
use super::create::{CreateArgs, Making, create_generated};
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::{self, Files};
use super::mutate::Validate;
use super::print::{self, Formats, PrintFlags, Printer, emit, sorted, yaml};
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
    pub print: PrintFlags,
    #[command(flatten)]
    pub validate: Validate,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-edit")]
    pub field_manager: String,
    /// Print the patch if the resource is edited
    #[arg(long)]
    pub output_patch: bool,
    /// Keep the configuration in an annotation, for a later apply
    #[arg(long)]
    pub save_config: bool,
    /// Edit this subresource instead
    #[arg(long)]
    pub subresource: Option<String>,
    /// The editor gets the line ends of Windows
    #[arg(long)]
    pub windows_line_endings: bool,
}

const HEAD: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n\
# and an empty file will abort the edit. If an error occurs while saving this file will be\n\
# reopened with the relevant failures.\n#\n";

/// Runs the verb.
pub async fn run(session: &Session, args: &EditArgs) -> Result<()> {
    let printer = args.print.printer(Formats::Objects)?;
    let selection = Selection::default();
    let (found, failures) = targets::resolve(session, &args.words, &args.files, &selection).await?;
    CtlError::gather(failures)?;
    let mut before = Vec::new();
    for target in found {
        let mut object = session.api.json(&Call::get(path(&target, args))).await?;
        targets::stamp(&mut object, &target.resource);
        print::forget_managers(&mut object);
        before.push((target, object));
    }
    let whole = match before.as_slice() {
        [(_, object)] => yaml::document(object),
        objects => {
            let items: Vec<&Value> = objects.iter().map(|(_, object)| object).collect();
            yaml::document(&json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {}}))
        }
    };
    edit_until_saved(whole, async |documents: Vec<Value>| save(session, args, &printer, &before, documents).await).await
}

fn path(target: &Target, args: &EditArgs) -> String {
    let tail = args.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
    target.path() + &tail
}

/// `create --edit`: the files' objects go through the editor first.
pub async fn create(session: &Session, args: &CreateArgs) -> Result<()> {
    let (documents, failures) = args.files.read()?;
    CtlError::gather(failures)?;
    let texts: Vec<String> = documents.iter().map(|document| yaml::document(&document.object)).collect();
    edit_until_saved(texts.join("---\n"), async |documents: Vec<Value>| {
        for object in documents {
            create_generated(session, object, &args.how, &Making::CREATE).await?;
        }
        Ok(())
    })
    .await
}

/// Opens the editor again, with the reason on top, until what it holds can be saved.
pub async fn edit_until_saved(body: String, mut save: impl AsyncFnMut(Vec<Value>) -> Result<()>) -> Result<()> {
    let original = body.clone();
    let mut text = format!("{HEAD}{body}");
    let mut refused = false;
    let file = tempfile::Builder::new().prefix("trictl-edit-").suffix(".yaml").tempfile()?;
    loop {
        let written = text.clone();
        file.as_file().set_len(0)?;
        std::fs::write(file.path(), &written)?;
        open_editor(file.path())?;
        let edited = std::fs::read_to_string(file.path())?.replace("\r\n", "\n");
        if edited == written && refused {
            return keep(&edited);
        }
        let bare = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        if bare(&edited) == bare(&original) {
            eprintln!("Edit cancelled, no changes made.");
            return Ok(());
        }
        if bare(&edited).trim().is_empty() {
            eprintln!("Edit cancelled, saved file was empty.");
            return Ok(());
        }
        let documents: Result<Vec<Value>> = manifest::parse(&edited, "edited-file")
            .into_iter()
            .map(|document| document.map(|document| document.object))
            .collect();
        let outcome = match documents {
            Ok(documents) => save(documents).await,
            Err(error) => Err(error),
        };
        let Err(error) = outcome else { return Ok(()) };
        // What was typed is not thrown away: it comes back with the reason on top.
        let reason = error.text();
        if matches!(error, CtlError::Plain(_)) && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            stored(&edited)?;
            return Err(error);
        }
        std::io::stderr().write_all(reason.as_bytes())?;
        let comments: String = reason.lines().map(|line| format!("# {line}\n")).collect();
        text = format!("{HEAD}{comments}#\n{}\n", bare(&edited));
        refused = true;
    }
}

fn stored(edited: &str) -> Result<()> {
    let (_, kept) = tempfile::Builder::new()
        .prefix("trictl-edit-")
        .suffix(".yaml")
        .tempfile()?
        .keep()
        .map_err(|error| CtlError::Io(error.error))?;
    std::fs::write(&kept, edited)?;
    eprintln!("A copy of your changes has been stored to {:?}", kept.display().to_string());
    Ok(())
}

fn keep(edited: &str) -> Result<()> {
    stored(edited)?;
    Err(CtlError::plain("Edit cancelled, no valid changes were saved."))
}

async fn save(
    session: &Session,
    args: &EditArgs,
    printer: &Printer,
    before: &[(Target, Value)],
    documents: Vec<Value>,
) -> Result<()> {
    for after in documents {
        let same = |object: &Value| {
            ["kind", "apiVersion"].iter().all(|field| object[*field] == after[*field])
                && object["metadata"]["name"] == after["metadata"]["name"]
                && object["metadata"]["namespace"] == after["metadata"]["namespace"]
        };
        let Some((target, object)) = before.iter().find(|(_, object)| same(object)) else {
            return Err(CtlError::plain("At least one of apiVersion, kind and name was changed"));
        };
        let after = if args.save_config { super::apply::with_last_applied(&after) } else { after };
        let (patch, content_type) = difference(target, object, &after)?;
        if patch.as_object().is_some_and(serde_json::Map::is_empty) {
            show_result(target, object, printer, "skipped")?;
            continue;
        }
        if args.output_patch {
            emit(&format!("Patch: {}\n", sorted(&patch)))?;
        }
        let call = Call::new(Method::PATCH, path(target, args))
            .query("fieldManager", &args.field_manager)
            .query("fieldValidation", args.validate.level()?)
            .body_as(content_type, &patch);
        let result = session.api.json(&call).await?;
        show_result(target, &result, printer, "edited")?;
    }
    Ok(())
}

fn open_editor(path: &Path) -> Result<()> {
    let editor = ["KUBE_EDITOR", "EDITOR", "VISUAL"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "vi".to_owned());
    // The variable may hold arguments and quotes.
    let mut words = editor.split_whitespace();
    let status = if editor.contains(['"', '\'', '\\']) {
        let line = format!("{editor} \"$1\"");
        std::process::Command::new("sh").arg("-c").arg(line).arg("editor").arg(path).status()
    } else {
        std::process::Command::new(words.next().unwrap_or("vi")).args(words).arg(path).status()
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !editor.contains('/') => {
            Err(CtlError::plain(format!("unable to launch the editor {editor:?}")))
        }
        _ => Err(CtlError::plain(format!("there was a problem with the editor {editor:?}"))),
    }
}
