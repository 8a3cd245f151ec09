//! What must be true at every step, of every write, and once all is well again.

use super::*;

impl World {
    /// Nobody works on what another works on.
    pub(in crate::table) fn check(&self) {
        let mut running: BTreeMap<RowId, (&MemberName, Mode)> = BTreeMap::new();
        let mut sharers: BTreeMap<String, BTreeSet<(&Uid, Mode)>> = BTreeMap::new();
        for at in (0..self.members.len()).filter(|at| self.may_work(*at)) {
            let member = &self.members[at];
            for (id, (_, mode)) in &member.runs {
                if let RowId::Controller(uid) = id {
                    sharers.entry(controller_of(uid)).or_default().insert((uid, *mode));
                }
                if *mode == Mode::Sharded {
                    continue;
                }
                if let Some((other, _)) = running.insert(id.clone(), (&member.name, *mode)) {
                    panic!("{other} and {} both work on {id:?}", member.name);
                }
            }
        }
        for (name, how) in sharers {
            assert!(how.len() == 1, "{name} runs as {how:?}");
        }
    }

    /// What must be true once faults are over for long enough.
    pub(in crate::table) fn check_settled(&self) {
        let (_, table) = self.table().expect("there is a table");
        let able: BTreeSet<&MemberName> =
            (0..self.members.len()).filter(|at| self.may_work(*at)).map(|at| &self.members[at].name).collect();
        assert_eq!(table.members.iter().collect::<BTreeSet<_>>(), able, "members");
        let wholes = table.controllers.values().filter(|row| row.mode == Mode::Whole);
        let shards = (0..=u8::MAX).map(RowId::Shard).zip(&table.shards);
        let wholes = wholes.map(|row| (RowId::Controller(row.uid.clone()), &row.row));
        for rows in [shards.collect::<Vec<_>>(), wholes.collect()] {
            let mut counts: BTreeMap<&MemberName, usize> = able.iter().map(|name| (*name, 0)).collect();
            for (id, row) in rows {
                let owner = row.owner.as_ref().expect("every row has an owner");
                *counts.get_mut(owner).unwrap_or_else(|| panic!("{owner} has {id:?}")) += 1;
                assert!(row.next.is_none() && !row.releasing, "{id:?} is at rest: {row:?}");
                let member = self.members.iter().find(|member| member.name == *owner).expect("known");
                assert_eq!(member.runs.get(&id), Some(&(row.epoch, Mode::Whole)), "{owner} works on {id:?}");
            }
            let (least, most) = (counts.values().min().copied(), counts.values().max().copied());
            assert!(most.unwrap_or(0) <= least.unwrap_or(0) + 1, "balance: {counts:?}");
        }
        assert_eq!(table.controllers.keys().collect::<Vec<_>>(), self.controllers.keys().collect::<Vec<_>>());
        for (name, row) in &table.controllers {
            assert_eq!((&row.uid, row.mode, row.becoming), {
                let declared = &self.controllers[name];
                (&declared.uid, declared.mode, None)
            });
            for member in self.members.iter().filter(|member| able.contains(&member.name)) {
                let mine = row.mode == Mode::Sharded || row.row.owner.as_ref() == Some(&member.name);
                assert_eq!(
                    member.duty.running(&RowId::Controller(row.uid.clone())).map(|(mode, _)| mode),
                    mine.then_some(row.mode),
                    "{name:?} at {}",
                    member.name
                );
            }
        }
    }
}

/// What must be true of every write of the table.
pub(super) fn check_step(before: Option<&Table>, after: &Table) {
    let Some(before) = before else { return };
    assert!(before.counter <= after.counter);
    for (id, row) in (0..=u8::MAX).map(RowId::Shard).zip(&after.shards) {
        let old = before.row(&id).expect("all shards have rows");
        assert!(old == row || (row.epoch > before.counter && row.epoch <= after.counter), "{id:?}: {old:?} to {row:?}");
    }
    assert!(after.shards.iter().all(|row| row.owner.is_some() || row.next.is_none()));
}

/// Of which controller [`declared`] made this uid.
fn controller_of(uid: &Uid) -> String {
    uid.to_string().split('-').next().unwrap_or_default().to_owned()
}
