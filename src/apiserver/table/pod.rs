//! The cells of pods: their state is gathered from phase, conditions and containers, as `printPod` of kube-apiserver
//! does.

use serde_json::{Value, json};

use super::age::{Instant, age};
use super::builtin::{age_cell, int, list, or, text};

/// What the states of containers add up to.
#[derive(Debug)]
struct Tally {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: Instant,
}

impl Tally {
    /// Counts restarts, and remembers the latest.
    fn restart(restarts: &mut i64, last: &mut Instant, container: &Value) {
        *restarts += int(&container["restartCount"]);
        let ended = &container["lastState"]["terminated"];
        if !ended.is_null() {
            *last = (*last).max(Instant::of_field(&ended["finishedAt"]));
        }
    }
}

pub(super) fn cells(pod: &Value, now: Instant) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = list(&spec["initContainers"]).iter().filter(|container| is_sidecar(container)).count();
    let total = list(&spec["containers"]).len() + sidecars;
    let mut tally = tally(pod);
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if text(&status["reason"]) == "NodeLost" {
            tally.reason = "Unknown".to_owned();
        } else if !matches!(text(&status["phase"]), "Succeeded" | "Failed") {
            tally.reason = "Terminating".to_owned();
        }
    }
    let restarts = match (tally.restarts, tally.last_restart) {
        (0, _) | (_, Instant::ZERO) => tally.restarts.to_string(),
        (restarts, last) => format!("{restarts} ({} ago)", age(last, now)),
    };
    let gates = list(&spec["readinessGates"]);
    let open = gates.iter().filter(|gate| is_true(status, text(&gate["conditionType"]))).count();
    let gates = if gates.is_empty() { "<none>".to_owned() } else { format!("{open}/{}", gates.len()) };
    let ip = or(text(&status["podIP"]), list(&status["podIPs"]).first().map_or("", |ip| text(&ip["ip"])));
    vec![
        text(&pod["metadata"]["name"]).into(),
        format!("{}/{total}", tally.ready).into(),
        tally.reason.into(),
        restarts.into(),
        age_cell(pod, now),
        or(ip, "<none>").into(),
        or(text(&spec["nodeName"]), "<none>").into(),
        or(text(&status["nominatedNodeName"]), "<none>").into(),
        gates.into(),
    ]
}

/// The `conditions` of a row: a pod that ended is marked as completed.
pub(super) fn row_conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(&pod["status"]["phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{ "type": "Completed", "status": "True", "reason": reason, "message": message }]))
}

fn is_sidecar(container: &Value) -> bool {
    text(&container["restartPolicy"]) == "Always"
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&status["conditions"]).iter().find(|condition| text(&condition["type"]) == kind)
}

fn is_true(status: &Value, kind: &str) -> bool {
    condition(status, kind).is_some_and(|condition| text(&condition["status"]) == "True")
}

fn tally(pod: &Value) -> Tally {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let gated = list(&status["conditions"])
        .iter()
        .any(|c| text(&c["type"]) == "PodScheduled" && text(&c["reason"]) == "SchedulingGated");
    let reason = if gated { "SchedulingGated" } else { or(text(&status["reason"]), text(&status["phase"])) };
    let mut tally = Tally { reason: reason.to_owned(), ready: 0, restarts: 0, last_restart: Instant::ZERO };

    // Of init containers, only those that stay count once the others are done.
    let (mut sidecar_restarts, mut sidecar_last) = (0, Instant::ZERO);
    let mut initializing = false;
    let init = list(&spec["initContainers"]);
    for (index, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
        let declared = init.iter().rfind(|declared| declared["name"] == container["name"]);
        let sidecar = declared.is_some_and(is_sidecar);
        Tally::restart(&mut tally.restarts, &mut tally.last_restart, container);
        if sidecar {
            Tally::restart(&mut sidecar_restarts, &mut sidecar_last, container);
        }
        let (ended, waiting) = (&container["state"]["terminated"], text(&container["state"]["waiting"]["reason"]));
        if !ended.is_null() && int(&ended["exitCode"]) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            tally.ready += usize::from(container["ready"] == true);
            continue;
        }
        tally.reason = match () {
            () if !ended.is_null() => format!("Init:{}", end_reason(ended)),
            () if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
            () => format!("Init:{index}/{}", init.len()),
        };
        initializing = true;
        break;
    }
    if !initializing || is_true(status, "Initialized") {
        (tally.restarts, tally.last_restart) = (sidecar_restarts, sidecar_last);
        add_containers(&mut tally, status);
    }
    tally
}

fn add_containers(tally: &mut Tally, status: &Value) {
    let (mut running, mut error) = (false, None);
    for container in list(&status["containerStatuses"]).iter().rev() {
        Tally::restart(&mut tally.restarts, &mut tally.last_restart, container);
        let state = &container["state"];
        let (waiting, ended) = (text(&state["waiting"]["reason"]), &state["terminated"]);
        if !waiting.is_empty() {
            tally.reason = waiting.to_owned();
        } else if !ended.is_null() {
            tally.reason = end_reason(ended);
            if int(&ended["exitCode"]) != 0 {
                error = Some(tally.reason.clone());
            }
        } else if container["ready"] == true && !state["running"].is_null() {
            running = true;
            tally.ready += 1;
        }
    }
    if tally.reason == "Completed" {
        match error {
            _ if running && is_true(status, "Ready") => tally.reason = "Running".to_owned(),
            Some(error) => tally.reason = error,
            None if running => tally.reason = "NotReady".to_owned(),
            None => {}
        }
    }
}

fn end_reason(ended: &Value) -> String {
    match (text(&ended["reason"]), int(&ended["signal"])) {
        ("", 0) => format!("ExitCode:{}", int(&ended["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
