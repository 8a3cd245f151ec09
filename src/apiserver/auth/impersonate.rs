//! Acting as somebody else (`kubectl --as`): who may, and who one is then.
//!
//! Never keeps anything: the headers of one request count for that request. Extra fields of users aren't known here.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::{AUTHENTICATED, UNAUTHENTICATED, User, authorize_path_to, authorize_to};
use crate::error::Error;
use crate::field_error::go_quote;
use crate::request::{Query, Request, Verb};
use crate::store::Store;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Whether headers name somebody else.
pub(crate) fn impersonates(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| matches!(name.as_str(), USER | GROUP | UID) || name.as_str().starts_with(EXTRA))
}

/// Who asks, after the headers that name somebody else. `asked` is the request, or its method and path.
///
/// # Errors
/// 400 if they name no user, 403 if who asks may not act as that one, 501 for extra fields.
pub(crate) fn impersonated(
    store: &Store,
    asker: Arc<User>,
    headers: &HeaderMap,
    asked: Result<&Request, (&Method, &str)>,
) -> Result<Arc<User>, Error> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (name, uid) = (text(USER), text(UID));
    let mut groups: Vec<String> =
        headers.get_all(GROUP).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    let extra = headers.keys().any(|header| header.as_str().starts_with(EXTRA));
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && !extra {
            return Ok(asker);
        }
        let quoted: Vec<String> = groups.iter().map(|group| go_quote(group)).collect();
        let list = if groups.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", quoted.join(", ")) };
        return Err(Error::bad_request(format!(
            "requested &user.DefaultInfo{{Name:\"\", UID:{}, Groups:[]string{list}, Extra:map[string][]string(nil)}} \
             without impersonating a user name",
            go_quote(uid),
        )));
    }
    if extra {
        return Err(Error::not_implemented("acting as a user with extra fields"));
    }
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let may = |group: &str, plural: &str, namespace: &str, name: &str| {
        let request = Request {
            verb: Verb::Get,
            group: group.to_owned(),
            version: "v1".to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            query: Query::default(),
            agent: String::new(),
            through: "",
        };
        authorize_to(store, &asker, "impersonate", &request)
    };
    let user = match account {
        Some((namespace, name)) => may("", "serviceaccounts", namespace, name),
        None => may("", "users", "", name),
    };
    let others = || groups.iter().try_for_each(|group| may("", "groups", "", group));
    let uids = || if uid.is_empty() { Ok(()) } else { may("authentication.k8s.io", "uids", "", uid) };
    if user.and_then(|()| others()).and_then(|()| uids()).is_err() {
        // Since v1.36 it is the right to do just this as somebody else that is said to lack.
        let what = if account.is_some() { "serviceaccount" } else { "user-info" };
        match asked {
            Ok(request) => {
                authorize_to(store, &asker, &format!("impersonate-on:{what}:{}", request.verb.name()), request)?;
            }
            Err((method, path)) => {
                let verb = method.as_str().to_lowercase();
                authorize_path_to(store, &asker, &format!("impersonate-on:{what}:{verb}"), path)?;
            }
        }
        return Err(Error::not_implemented("acting as another user with constrained rights (impersonate-on)"));
    }
    if let Some((namespace, _)) = account
        && groups.is_empty()
    {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    let wanted = if name == User::anonymous().name { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(wanted.to_owned());
    }
    Ok(Arc::new(User { name: name.to_owned(), uid: uid.to_owned(), groups }))
}
