//! Files of objects: YAML or JSON documents, one after another.
//!
//! Never reads anything but local files; a folder stands for its files, in the order of their names.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::objects::{self, Objects};

/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// Most files of one folder.
const MAX_FILES: usize = 1000;
/// What kustomize reads.
const KUSTOMIZATION: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Why a file can't be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It can't be read.
    #[error("--apply {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too large, or there are too many.
    #[error("--apply {}: more than {limit}; name fewer or smaller files", path.display())]
    TooMuch {
        /// The file or folder.
        path: PathBuf,
        /// The limit that was hit.
        limit: String,
    },
    /// It isn't YAML or JSON.
    #[error("--apply {}: not YAML: {why}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// There is nothing to apply.
    #[error("--apply {}: no object in it; give YAML or JSON files, or a folder of them", path.display())]
    Nothing {
        /// The file or folder.
        path: PathBuf,
    },
    /// The folder is meant for kustomize.
    #[error("--apply {}: it has a kustomization, which isn't followed; apply it by `kubectl apply -k`, or name its files", path.display())]
    Kustomization {
        /// The folder.
        path: PathBuf,
    },
    /// An object was refused.
    #[error("--apply {}: {object}: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Kind and name of the object.
        object: String,
        /// The server's words.
        why: String,
    },
}

/// Applies every object of a file or folder; gives back how many there were.
///
/// # Errors
/// At the first file that can't be read, or object that is refused. What came before it stays applied.
pub(crate) async fn apply(objects: &Objects, path: &Path) -> Result<usize, Error> {
    let mut count = 0;
    for file in files(path)? {
        let documents = documents(&file)?;
        if documents.is_empty() {
            return Err(Error::Nothing { path: file });
        }
        for object in documents {
            objects.apply(&object).await.map_err(|error| Error::Refused {
                path: file.clone(),
                object: label(&object),
                why: reason(&error),
            })?;
            count += 1;
        }
    }
    Ok(count)
}

/// Kind and name, as far as they are there.
fn label(object: &Value) -> String {
    let text = |value: &Value, missing: &str| value.as_str().unwrap_or(missing).to_owned();
    format!("{} {}", text(&object["kind"], "(no kind)"), text(&object["metadata"]["name"], "(no name)"))
}

/// What the server said, without the request: that is ours, not the reader's.
fn reason(error: &objects::Error) -> String {
    match error {
        objects::Error::Call { source, .. } => match &**source {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if KUSTOMIZATION.contains(&name) {
            return Err(Error::Kustomization { path: path.to_owned() });
        }
        if file.is_file() && matches!(extension, "yaml" | "yml" | "json") {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(Error::TooMuch { path: path.to_owned(), limit: format!("{MAX_FILES} files") });
        }
    }
    if files.is_empty() {
        return Err(Error::Nothing { path: path.to_owned() });
    }
    files.sort();
    Ok(files)
}

/// The objects of a file; a `List` stands for its items.
fn documents(path: &Path) -> Result<Vec<Value>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE_BYTES {
        return Err(Error::TooMuch { path: path.to_owned(), limit: format!("{MAX_FILE_BYTES} bytes") });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| Error::Parse { path: path.to_owned(), why: error.to_string() })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).flat_map(items).collect())
}

fn items(mut document: Value) -> Vec<Value> {
    let is_list = document["apiVersion"] == "v1" && document["kind"] == "List";
    match document["items"].take() {
        Value::Array(items) if is_list => items,
        Value::Null => {
            // Indexing made the field where there was none.
            if let Some(document) = document.as_object_mut() {
                document.remove("items");
            }
            vec![document]
        }
        other => {
            document["items"] = other;
            vec![document]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_its_manifests_and_a_list_for_its_items() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("b.yaml", "---\n# nothing\n---\napiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: B\n");
        write("a.json", r#"{"apiVersion":"v1","kind":"List","items":[{"kind":"C"},{"kind":"D"}]}"#);
        write("notes.txt", "no manifest");
        let files = files(dir.path()).unwrap();
        assert_eq!(files.len(), 2);
        let kinds: Vec<String> = files
            .iter()
            .flat_map(|file| documents(file).unwrap())
            .map(|object| object["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["C", "D", "A", "B"]);
        write("kustomization.yaml", "resources: [b.yaml]\n");
        assert!(matches!(super::files(dir.path()), Err(Error::Kustomization { .. })));
    }

    #[test]
    fn what_cannot_be_applied_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(files(dir.path()), Err(Error::Nothing { .. })));
        assert!(matches!(files(&dir.path().join("none.yaml")), Err(Error::Read { .. })));
        let bad = dir.path().join("bad.yaml");
        std::fs::write(&bad, "a: [").unwrap();
        assert!(documents(&bad).unwrap_err().to_string().contains("bad.yaml: not YAML"));
    }
}
