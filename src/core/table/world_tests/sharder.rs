//! What a member does as the sharder, or to become it.

use super::checks::check_step;
use super::*;

impl World {
    pub(in crate::table) fn list(&mut self, at: usize) {
        if !self.reaches(at) {
            return;
        }
        let (now, member) = (self.now, &mut self.members[at]);
        let table = member.table.and_then(|version| self.tables[version].as_ref());
        let expected = table.map(|(_, table)| table.names()).unwrap_or_default();
        let seen = self.leases.iter().map(|(name, lease)| (name.clone(), lease.seen())).collect();
        member.observer.listed(now, &seen, &expected);
        member.leases = self.leases.clone();
        let read = member.table.is_some();
        member.listed_under = if read { Under::of(table) } else { Under::NeverRead };
    }

    /// Takes what it believes to be lost, and removes what nobody needs.
    pub(in crate::table) fn take(&mut self, at: usize) {
        if !self.reaches(at) {
            return;
        }
        let (now, member) = (self.now, &mut self.members[at]);
        let table = member.table.and_then(|version| self.tables[version].as_ref());
        let named = table.map(|(_, table)| table.names()).unwrap_or_default();
        let known: BTreeSet<MemberName> = named.iter().chain(member.leases.keys()).cloned().collect();
        let lost: Vec<_> = known.iter().filter(|name| member.observer.life(now, name) == Life::Lost).collect();
        for name in lost {
            let mut lease = match (self.leases.get(name), member.leases.get(name)) {
                (None, _) if member.observer.is_missing(name) => Lease::missing(),
                (Some(lease), Some(seen)) if lease.version == seen.version => lease.clone(),
                _ => continue,
            };
            self.version += 1;
            lease.version = self.version;
            lease.holder = member.name.to_string();
            member.observer.saw(now, name, Some(lease.seen()));
            member.leases.insert(name.clone(), lease.clone());
            self.leases.insert(name.clone(), lease);
        }
        for name in member.observer.deletable(now, &named) {
            self.leases.remove(&name);
            member.observer.saw(now, &name, None);
        }
    }

    /// Plans as if it led, and writes. Tells whether a table was written.
    pub(in crate::table) fn plan(&mut self, at: usize) -> bool {
        if !self.reaches(at) {
            return false;
        }
        let now = self.now;
        let Some(version) = self.members[at].table else { return false };
        let members = self.members_seen(at);
        let member = &mut self.members[at];
        let known = self.tables[version].clone();
        if member.listed_under != Under::of(known.as_ref()) {
            return false;
        }
        let view = View {
            installation: &self.installation,
            table: known.as_ref().map(|(uid, table)| (uid, table)),
            members: &members,
            controllers: &self.controllers,
            controllers_known: true,
            knows_all_from: member.observer.knows_all_from(now),
            me: &member.name,
            now,
            wall_secs: self.wall_secs + now.as_secs(),
        };
        let plan = member.planner.plan(&view);
        let Some(table) = plan.write else { return false };
        let uid = known.as_ref().map(|(uid, _)| uid.clone());
        if let Some((uid, _)) = &known {
            let again = View { table: Some((uid, &table)), ..view };
            let more = member.planner.clone().plan(&again);
            assert_eq!(more.write, None, "planning over its own output changes it");
        }
        // A table is made where there is none, however long ago that was seen to be so.
        let unchanged = if known.is_some() { version + 1 == self.tables.len() } else { self.table().is_none() };
        if !unchanged || !self.kind_exists {
            return false;
        }
        self.made += u64::from(uid.is_none());
        let uid = uid.unwrap_or_else(|| Uid::new(&format!("t{}", self.made)));
        check_step(known.as_ref().map(|(_, table)| table), &table);
        self.tables.push(Some((uid, table)));
        self.writes += 1;
        self.notices.extend(plan.notices);
        true
    }

    /// Reads, and perhaps takes, the sharder's Lease.
    pub(in crate::table) fn campaign(&mut self, at: usize) {
        if !self.reaches(at) {
            return;
        }
        let (now, member) = (self.now, &mut self.members[at]);
        if self.sharder.as_ref().is_none_or(|name| member.observer.life(now, name) != Life::Live) {
            self.sharder = Some(member.name.clone());
        }
        member.leads = self.sharder.as_ref() == Some(&member.name);
    }

    /// Works alone where there are no tables, as far as it may by what it believes.
    pub(in crate::table) fn go_alone(&mut self, at: usize) {
        if !self.acts(at) {
            return;
        }
        let (now, members) = (self.now, self.members_seen(at));
        let member = &mut self.members[at];
        let wholes: BTreeMap<_, _> = self
            .controllers
            .iter()
            .map(|(name, declared)| (name.clone(), Declared { mode: Mode::Whole, ..declared.clone() }))
            .collect();
        let me = member.name.clone();
        let view = View {
            installation: &self.installation,
            table: None,
            members: &members,
            controllers: &wholes,
            controllers_known: true,
            knows_all_from: member.observer.knows_all_from(now),
            me: &me,
            now,
            wall_secs: self.wall_secs + now.as_secs(),
        };
        let report = member.duty.report();
        let uid = Uid::new(alone::ALONE);
        let orders = match &mut member.own {
            None if member.leads && report.table == Some(Uid::new(NO_TABLE)) && alone::may_claim(&view) => {
                let table = alone::table(&view);
                let orders = member.duty.see(&uid, &table);
                member.own = Some((table, Planner::new(SETTINGS)));
                orders
            }
            Some(_) if !member.leads => {
                member.own = None;
                member.duty.see_none()
            }
            Some((table, planner)) if alone::may_begin(&view) => {
                let mut only = members[&me].clone();
                only.report = report;
                let only = BTreeMap::from([(me.clone(), only)]);
                let plan = planner.plan(&View { table: Some((&uid, table)), members: &only, ..view });
                *table = plan.write.unwrap_or_else(|| table.clone());
                member.duty.see(&uid, table)
            }
            _ => return,
        };
        self.obey(at, orders);
    }

    fn members_seen(&self, at: usize) -> BTreeMap<MemberName, MemberView> {
        let member = &self.members[at];
        let view = |name: &MemberName| {
            let missing = Lease::missing();
            let lease = member.leases.get(name).unwrap_or(&missing);
            let view = MemberView {
                life: member.observer.life(self.now, name),
                report: lease.report.clone(),
                leaving: lease.leaving,
                base: Arc::clone(&lease.base),
            };
            (name.clone(), view)
        };
        member.observer.names().map(view).collect()
    }
}
