//! Which files a webhook is made of, by the words of its command; and whether they have changed.
//!
//! Never looks outside the working folder, and never at what a program makes for itself: caches, data, logs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Most files and folders that are looked at, of any kind; what comes after them is not watched.
const MAX_ENTRIES: usize = 20_000;
/// How deep folders are looked into.
const MAX_DEPTH: usize = 8;
/// Folders of results and of other people's code.
const SKIPPED: [&str; 6] = ["target", "node_modules", "__pycache__", "vendor", "venv", "dist"];
/// What people write programs in.
const EXTENSIONS: [&str; 34] = [
    "c",
    "cjs",
    "clj",
    "cpp",
    "cs",
    "cue",
    "ex",
    "exs",
    "fs",
    "go",
    "h",
    "hs",
    "html",
    "java",
    "js",
    "jsonnet",
    "kt",
    "libsonnet",
    "lua",
    "mjs",
    "mod",
    "php",
    "pl",
    "py",
    "rb",
    "rs",
    "scala",
    "sh",
    "swift",
    "tmpl",
    "toml",
    "ts",
    "tsx",
    "zig",
];

/// A file's time of change and size.
type Stamp = (Option<SystemTime>, u64);
/// What the files are at one moment.
pub(crate) type Snapshot = BTreeMap<PathBuf, Stamp>;

/// The files and folders of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    roots: Vec<PathBuf>,
}

impl Sources {
    /// Those that a command names, as far as they are below `folder`: a file stands for the folder that it is in.
    pub(crate) fn of(command: &str, folder: &Path) -> Self {
        let Ok(folder) = folder.canonicalize() else { return Self { roots: Vec::new() } };
        let mut roots: Vec<PathBuf> = Vec::new();
        for word in command.split(|c: char| c.is_whitespace() || matches!(c, '=' | ';' | '&' | '|' | '\'' | '"')) {
            let Ok(path) = folder.join(word).canonicalize() else { continue };
            let root = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
            if let Some(root) = root.filter(|root| !word.is_empty() && root.starts_with(&folder))
                && !roots.iter().any(|known| known == root)
            {
                roots.push(root.to_owned());
            }
        }
        Self { roots }
    }

    /// The folders that are watched.
    pub(crate) fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The files as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.look().0
    }

    /// Whether there is more in the folders than is looked at.
    pub(crate) fn is_too_large(&self) -> bool {
        self.look().1 >= MAX_ENTRIES
    }

    fn look(&self) -> (Snapshot, usize) {
        let (mut found, mut seen) = (Snapshot::new(), 0);
        for root in &self.roots {
            look(root, 0, &mut found, &mut seen);
        }
        (found, seen)
    }
}

/// The files that differ between two moments.
pub(crate) fn changed<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Vec<&'a Path> {
    let missing = before.keys().filter(|path| !after.contains_key(*path));
    let other = after.iter().filter(|(path, stamp)| before.get(*path) != Some(stamp)).map(|(path, _)| path);
    missing.chain(other).map(PathBuf::as_path).collect()
}

fn look(folder: &Path, depth: usize, found: &mut Snapshot, seen: &mut usize) {
    // A folder that can't be read has nothing that we could see change.
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else { continue };
        if *seen >= MAX_ENTRIES {
            return;
        }
        *seen += 1;
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        if kind.is_dir() {
            if depth < MAX_DEPTH && !SKIPPED.contains(&&*name) {
                look(&path, depth + 1, found, seen);
            }
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| EXTENSIONS.contains(&e))
            && let Ok(metadata) = std::fs::metadata(&path)
        {
            found.insert(path, (metadata.modified().ok(), metadata.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_command_is_made_of_what_it_names_below_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("hooks/a")).unwrap();
        fs::create_dir_all(root.join("cmd/b")).unwrap();
        fs::write(root.join("hooks/a/hook.py"), "").unwrap();
        let of = |command: &str| Sources::of(command, &root).roots;
        assert_eq!(of("python3 hooks/a/hook.py --listen 127.0.0.1:0"), [root.join("hooks/a")]);
        assert_eq!(of("cd 'hooks/a'; PORT=1 go run ./cmd/b"), [root.join("hooks/a"), root.join("cmd/b")]);
        assert_eq!(of("/bin/sh -c true"), Vec::<PathBuf>::new());
        assert_eq!(of("serve ../"), Vec::<PathBuf>::new());
    }

    #[test]
    fn only_source_files_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        for folder in ["__pycache__", ".git", "lib"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        write("hook.py", "1");
        let sources = Sources::of(".", dir.path());
        let before = sources.snapshot();
        for name in ["data.json", "hook.log", "__pycache__/hook.py", ".git/x.py"] {
            write(name, "2");
        }
        assert_eq!(changed(&before, &sources.snapshot()), Vec::<&Path>::new());
        write("lib/more.py", "3");
        write("hook.py", "longer");
        let after = sources.snapshot();
        let mut names: Vec<_> = changed(&before, &after).iter().map(|path| path.file_name().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["hook.py", "more.py"]);
        fs::remove_file(dir.path().join("hook.py")).unwrap();
        assert_eq!(changed(&after, &sources.snapshot()).len(), 1);
    }
}
