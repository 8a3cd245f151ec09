//! Checks of the volumes of pods and of where containers mount them.

use std::collections::HashSet;

use serde_json::Value;

use super::{Check, claim, list, text};
use crate::field_error::{FieldError, FieldErrorKind, go_quote};
use crate::kinds::names;

/// The kinds of volumes, in the order in which the real server looks at them.
const SOURCES: [&str; 29] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "flocker",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
];
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks volumes; gives the names of those that are right.
pub(super) fn volumes<'a>(check: &mut Check<'_>, at: &str, volumes: &'a [Value]) -> HashSet<&'a str> {
    let mut right = HashSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let before = check.errors.len();
        source(check, &at, volume);
        let name = text(volume, "name");
        let field = format!("{at}.name");
        if name.is_empty() {
            check.required(&field, "");
        } else {
            check.named(&field, name, names::dns_label(name));
        }
        if right.contains(name) {
            check.duplicate(field, go_quote(name));
        }
        if check.errors.len() == before {
            right.insert(name);
        }
    }
    right
}

fn source(check: &mut Check<'_>, at: &str, volume: &Value) {
    let mut found = false;
    for kind in SOURCES.iter().chain(&["image"]) {
        let source = &volume[*kind];
        if source.is_null() {
            continue;
        }
        let at = format!("{at}.{kind}");
        if std::mem::replace(&mut found, true) {
            check.forbidden(at, "may not specify more than 1 volume type");
            continue;
        }
        match *kind {
            "secret" => {
                required(check, &at, source, "secretName");
                files(check, &at, source);
            }
            "configMap" => {
                required(check, &at, source, "name");
                files(check, &at, source);
            }
            "hostPath" => host_path(check, &at, source),
            "persistentVolumeClaim" => required(check, &at, source, "claimName"),
            "nfs" => {
                required(check, &at, source, "server");
                required(check, &at, source, "path");
                if !text(source, "path").is_empty() && !text(source, "path").starts_with('/') {
                    check.invalid_text(format!("{at}.path"), text(source, "path"), "must be an absolute path");
                }
            }
            "csi" => required(check, &at, source, "driver"),
            "projected" | "downwardAPI" => mode(check, &format!("{at}.defaultMode"), &source["defaultMode"]),
            "ephemeral" => match &source["volumeClaimTemplate"] {
                Value::Null => check.required(format!("{at}.volumeClaimTemplate"), ""),
                template => claim::spec(check, &format!("{at}.volumeClaimTemplate.spec"), &template["spec"]),
            },
            "image" => required(check, &at, source, "reference"),
            _ => {}
        }
    }
    if !found {
        check.required(at, "must specify a volume type");
    }
}

fn required(check: &mut Check<'_>, at: &str, source: &Value, name: &str) {
    if text(source, name).is_empty() {
        check.required(format!("{at}.{name}"), "");
    }
}

fn mode(check: &mut Check<'_>, field: &str, value: &Value) {
    if let Some(value) = value.as_i64().filter(|value| !(0..=0o777).contains(value)) {
        check.invalid(field, value.to_string(), MODE);
    }
}

fn files(check: &mut Check<'_>, at: &str, source: &Value) {
    mode(check, &format!("{at}.defaultMode"), &source["defaultMode"]);
    for (i, item) in list(source, "items").iter().enumerate() {
        let at = format!("{at}.items[{i}]");
        required(check, &at, item, "key");
        required(check, &at, item, "path");
        let (field, path) = (format!("{at}.path"), text(item, "path"));
        relative(check, &field, path);
        if path.starts_with("..") && !path.starts_with("../") {
            check.invalid_text(field, path, "must not start with '..'");
        }
        mode(check, &format!("{at}.mode"), &item["mode"]);
    }
}

/// A path that stays below where it starts.
fn relative(check: &mut Check<'_>, field: &str, path: &str) {
    if path.starts_with('/') {
        check.invalid_text(field, path, "must be a relative path");
    }
    no_way_up(check, field, path);
}

fn no_way_up(check: &mut Check<'_>, field: &str, path: &str) {
    if path.split('/').any(|part| part == "..") {
        check.invalid_text(field, path, "must not contain '..'");
    }
}

fn host_path(check: &mut Check<'_>, at: &str, source: &Value) {
    const KINDS: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    required(check, at, source, "path");
    if text(source, "path").is_empty() {
        return;
    }
    no_way_up(check, &format!("{at}.path"), text(source, "path"));
    if let Some(kind) = source["type"].as_str() {
        check.one_of(format!("{at}.type"), kind, &KINDS);
    }
}

/// Checks where a container mounts volumes.
pub(super) fn mounts(check: &mut Check<'_>, at: &str, container: &Value, volumes: &HashSet<&str>) {
    let mounts = list(container, "volumeMounts");
    let devices = list(container, "volumeDevices");
    for (i, mount) in mounts.iter().enumerate() {
        let at_mount = format!("{at}.volumeMounts[{i}]");
        let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
        required(check, &at_mount, mount, "name");
        if !volumes.contains(name) {
            check.errors.push(FieldError::new(
                FieldErrorKind::NotFound,
                format!("{at_mount}.name"),
                go_quote(name),
                "",
            ));
        }
        required(check, &at_mount, mount, "mountPath");
        let field = format!("{at_mount}.mountPath");
        if mounts[..i].iter().any(|other| text(other, "mountPath") == path) {
            check.invalid_text(&field, path, "must be unique");
        }
        if devices.iter().any(|device| text(device, "name") == name) {
            check.invalid_text(format!("{at_mount}.name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| text(device, "devicePath") == path) {
            check.invalid_text(field, path, "must not already exist as a path in volumeDevices");
        }
        for name in ["subPath", "subPathExpr"] {
            if !text(mount, name).is_empty() {
                relative(check, &format!("{at}.volumeMounts.{name}"), text(mount, name));
            }
        }
    }
}
