//! The suites, one file each: `cases()` lists its trials.
//!
//! Never asks which kind of server it runs on.

mod apply;
mod children;
mod children_anew;
mod children_claim;
mod children_when;
mod command;
mod conformance;
mod controllers_change;
mod controllers_kinds;
mod customize;
mod decorators;
mod decorators_told;
mod dev;
mod errors_setting;
mod events;
mod faults_api;
mod faults_children;
mod faults_clock;
mod faults_decorators;
mod faults_finalizers;
mod faults_hook;
mod faults_kinds;
mod faults_lists;
mod faults_related;
mod faults_reply;
mod faults_retry;
mod faults_rights;
mod faults_roles;
mod faults_rollouts;
mod faults_settings;
mod finalize;
mod kubectl;
mod labelpolicy;
mod main_job;
mod members_begin;
mod members_check;
mod members_finalize;
mod members_hands;
mod members_kill;
mod members_large;
mod members_net;
mod members_odd;
mod members_parts;
mod members_rollout;
mod members_scale;
mod memory;
mod metacontroller;
mod metacontroller_checklist;
mod metacontroller_children;
mod metacontroller_decorators;
mod metacontroller_fields;
mod metacontroller_finalizers;
mod metacontroller_flags;
mod metacontroller_hooks;
mod metacontroller_revisions;
mod metacontroller_scene;
mod metrics;
mod migrating;
mod readme;
mod reply_extras;
mod rings_admission;
mod rings_assign;
mod rings_check;
mod rings_contract;
mod rings_die;
mod rings_drain;
mod rings_fields;
mod rings_leases;
mod rings_leave;
mod rings_memory;
mod rings_scale;
mod rings_sharder;
mod rings_story;
mod rings_told;
mod rival;
mod rollouts;
mod rollouts_revisions;
mod scale;
mod scene;
mod serverside;
mod smoke;
mod soak;
mod takeover;
mod troubleshooting;
mod watchers;
mod webhooks;
mod webhooks_auth;
mod webhooks_counter;
mod webhooks_cut;
mod webhooks_etag;
mod webhooks_load;
mod webhooks_service;
mod webhooks_spread;
mod webhooks_tls;
mod webhooks_told;
mod webhooks_two;

use crate::trial::Case;

/// Every trial of this run, in the order in which they start.
///
/// Scenarios of members want a machine for themselves, as their Leases count seconds: a run of everything leaves them
/// out, and one that asks for `members` has all of them (`make members`, which is part of `make test`). The same with those
/// of rings (`make rings`).
pub(crate) fn all() -> Vec<Case> {
    let asks_for = |word: &str| std::env::args().skip(1).any(|argument| argument.contains(word));
    let members = if asks_for("members") { members() } else { Vec::new() };
    let rings = if asks_for("rings_") { rings() } else { Vec::new() };
    everyday().into_iter().chain(members).chain(rings).collect()
}

/// Every trial that there is, whether or not this run has it.
fn known() -> Vec<Case> {
    everyday().into_iter().chain(members()).chain(rings()).collect()
}

fn everyday() -> Vec<Case> {
    [
        smoke::cases(),
        apply::cases(),
        command::cases(),
        conformance::cases(),
        dev::cases(),
        labelpolicy::cases(),
        main_job::cases(),
        metacontroller::cases(),
        memory::cases(),
        rival::cases(),
        metacontroller_checklist::cases(),
        metacontroller_children::cases(),
        metacontroller_decorators::cases(),
        metacontroller_fields::cases(),
        metacontroller_finalizers::cases(),
        metacontroller_flags::cases(),
        metacontroller_hooks::cases(),
        metacontroller_revisions::cases(),
        metrics::cases(),
        migrating::cases(),
        readme::cases(),
        reply_extras::cases(),
        rings_check::cases(),
        rings_fields::cases(),
        rollouts::cases(),
        rollouts_revisions::cases(),
        scale::cases(),
        children::cases(),
        children_anew::cases(),
        children_claim::cases(),
        children_when::cases(),
        serverside::cases(),
        errors_setting::cases(),
        events::cases(),
        faults_api::cases(),
        faults_children::cases(),
        faults_clock::cases(),
        faults_decorators::cases(),
        faults_finalizers::cases(),
        faults_hook::cases(),
        faults_kinds::cases(),
        faults_lists::cases(),
        faults_related::cases(),
        faults_reply::cases(),
        faults_retry::cases(),
        faults_rights::cases(),
        faults_roles::cases(),
        faults_rollouts::cases(),
        faults_settings::cases(),
        customize::cases(),
        decorators::cases(),
        decorators_told::cases(),
        finalize::cases(),
        controllers_change::cases(),
        controllers_kinds::cases(),
        members_begin::cases(),
        members_check::cases(),
        members_parts::cases(),
        soak::cases(),
        takeover::cases(),
        troubleshooting::cases(),
        watchers::cases(),
        webhooks::cases(),
        webhooks_auth::cases(),
        webhooks_etag::cases(),
        kubectl::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Scenarios of members.
fn members() -> Vec<Case> {
    let all = [
        members_scale::cases(),
        members_kill::cases(),
        members_net::cases(),
        members_hands::cases(),
        members_odd::cases(),
        members_rollout::cases(),
        members_finalize::cases(),
        members_large::cases(),
    ];
    all.into_iter().flatten().collect()
}

/// Scenarios of external rings.
fn rings() -> Vec<Case> {
    let all = [
        rings_admission::cases(),
        rings_assign::cases(),
        rings_scale::cases(),
        rings_die::cases(),
        rings_sharder::cases(),
        rings_drain::cases(),
        rings_leave::cases(),
        rings_leases::cases(),
        rings_contract::cases(),
        rings_memory::cases(),
        rings_story::cases(),
        rings_told::cases(),
    ];
    all.into_iter().flatten().collect()
}
