//! A parent's related objects on their way into its hook call: what the customize hook says, checked, watched, and read.
//!
//! Never calls the hook while what it said still counts.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::hook::{Observed, RelatedRule, customize_request, related_rules};
use ringmaster_core::key::{ApiVersion, Resource};
use ringmaster_core::object::Object;
use ringmaster_core::related::reach;
use ringmaster_hooks::Route;

use crate::children::Family;
use crate::hosted::url;
use crate::related::Missing;
use crate::sync::Syncer;
use crate::tell::Problem;

/// A parent whose related objects are still being listed is looked at again after this long.
const RETRY: Duration = Duration::from_millis(500);

impl Syncer {
    /// The objects that the parent is related to, by kind; none without a customize hook.
    pub(crate) async fn related(
        &self,
        family: &Family<'_>,
        parent: &Object,
        attempt: u32,
    ) -> Result<Vec<Observed>, Problem> {
        let hosted = family.hosted;
        let (Some(related), Some(route)) = (&hosted.related, &hosted.routes.customize) else { return Ok(Vec::new()) };
        if !related.has_answer(parent) {
            self.customize(family, parent, route, attempt).await?;
        }
        related.objects(parent.key()).await.map_err(|missing| match missing {
            Missing::NotYet => Problem::Busy(RETRY),
            Missing::Troubled(reason, text) => Problem::Related(reason, text),
            // The hook is asked again, and its kinds are looked up anew.
            Missing::NotServed(version, text) => {
                self.discovery.forget(&version);
                related.forget(parent.key());
                Problem::Related("RelatedKindNotServed", text)
            }
        })
    }

    /// Asks the customize hook, and has watched what it names.
    async fn customize(
        &self,
        family: &Family<'_>,
        parent: &Object,
        route: &Route,
        attempt: u32,
    ) -> Result<(), Problem> {
        let hosted = family.hosted;
        let (Some(related), Some(hook)) = (&hosted.related, &hosted.model.customize) else { return Ok(()) };
        let body = customize_request(&hosted.model.json, parent);
        let reply = self.ask((family, None), parent, ("customize", route, true), body, attempt).await?;
        let read = related_rules(&reply.body, self.limits, hook.webhook.strict);
        if let Err(ringmaster_core::hook::Error::Rules { .. }) = read {
            self.client.limit_hit("related_rules");
        }
        let (rules, mut remarks) =
            self.understood(hosted, parent, ("customize", route), &reply.body, read).map_err(Problem::Reply)?;
        let wrong = |index: usize, problem: &str| {
            route.forget(&("customize", parent.uid().clone()));
            Problem::Reply(format!("POST {}: relatedResources[{index}]{problem}", url(route)))
        };
        let (mut reaches, mut empty) = (Vec::with_capacity(rules.len()), Vec::new());
        for (index, rule) in rules.iter().enumerate() {
            let resource = self.find(index, rule, route).await?;
            match reach(rule, hook.version, parent.key().namespace(), &resource) {
                Ok(Ok(found)) => reaches.push(found),
                Ok(Err(why)) => {
                    remarks.push(format!("relatedResources[{index}]{why}"));
                    empty.push(resource);
                }
                Err(problem) => return Err(wrong(index, &problem)),
            }
        }
        for remark in &remarks {
            self.tell.remark(hosted, parent, remark);
        }
        let namespaces = if reaches.iter().any(ringmaster_core::related::Related::asks_for_namespaces) {
            let found = self.discovery.find(&ApiVersion::new("v1"), "namespaces").await.map_err(Problem::Read)?;
            Some(found.ok_or_else(|| Problem::Related("KindNotServed", "namespaces aren't served".to_owned()))?)
        } else {
            None
        };
        // Its shard may have gone to another member meanwhile: then nothing is kept.
        family.permit.check("what follows from a hook's reply").map_err(Problem::Read)?;
        let crowded = related.keep(parent, reaches, empty, namespaces.as_ref());
        for _ in 0..crowded {
            self.client.limit_hit("narrow_related_watches");
        }
        Ok(())
    }

    async fn find(&self, index: usize, rule: &RelatedRule, route: &Route) -> Result<Arc<Resource>, Problem> {
        let found = self.discovery.find(&rule.api_version, &rule.resource).await.map_err(Problem::Read)?;
        found.ok_or_else(|| {
            let text = format!(
                "POST {}: relatedResources[{index}].resource: the API server doesn't serve {} in {}; install its CRD, or \
                 correct the name (plural, lower case)",
                url(route),
                rule.resource,
                rule.api_version
            );
            Problem::Related("RelatedKindNotServed", text)
        })
    }
}
