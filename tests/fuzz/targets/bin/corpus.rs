//! A corpus from a folder of libFuzzer's to text (`corpus pack FOLDER FILE`) and back (`corpus unpack FILE FOLDER`).

use std::path::Path;

use anyhow::{Context as _, bail};
use ringmaster_fuzz_targets::corpus;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["pack", folder, file] => pack(Path::new(folder), Path::new(file)),
        ["unpack", file, folder] => unpack(Path::new(file), Path::new(folder)),
        _ => bail!("corpus pack FOLDER FILE, or corpus unpack FILE FOLDER"),
    }
}

fn pack(folder: &Path, file: &Path) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        lines.push(corpus::line(&std::fs::read(entry?.path())?));
    }
    // Short ones first, and always in the same order.
    lines.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let text: String = lines.into_iter().filter(|line| !line.is_empty()).map(|line| line + "\n").collect();
    Ok(std::fs::write(file, text)?)
}

fn unpack(file: &Path, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (number, line) in std::fs::read_to_string(file)?.lines().enumerate() {
        let input = corpus::input(line).with_context(|| format!("line {}", number + 1))?;
        std::fs::write(folder.join(number.to_string()), input)?;
    }
    Ok(())
}
