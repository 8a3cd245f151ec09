//! Calls that want the metadata of objects alone: whoever divides them needs no content, and never sees a Secret's.
//!
//! A server that can't leave the content out gives all of it; nothing but the metadata is looked at all the same.

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ringmaster_core::key::{ObjectKey, Resource};
use ringmaster_core::object::Object;
use ringmaster_core::watch::decode_page;

use super::{Accept, Client, METADATA_PAGE_LIMIT, READ_TIMEOUT, answer, kind_path, managed, object_path, selected};
use crate::Error;

/// A page of metadata.
#[derive(Debug, Default)]
pub struct Page {
    /// Its objects.
    pub objects: Vec<Object>,
    /// What the next page is asked for by; `None` if this is the last.
    pub next: Option<String>,
}

impl Client {
    /// Reads an object's metadata; `None` if it isn't there.
    ///
    /// # Errors
    /// If the call fails otherwise.
    pub async fn get_metadata(&self, resource: &Resource, key: &ObjectKey) -> Result<Option<Object>, Error> {
        let path = object_path(resource, key);
        match self.read(&path, Accept::Metadata, READ_TIMEOUT).await {
            Ok(body) => self.parse(&Method::GET, &path, &body, resource).map(Some),
            Err(error) if error.is_object_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Merge-patches an object; only its metadata comes back.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn patch_metadata(&self, resource: &Resource, key: &ObjectKey, body: Vec<u8>) -> Result<Object, Error> {
        let path = managed(&object_path(resource, key));
        let kind = "application/merge-patch+json";
        let body = self.write_for(Method::PATCH, &path, (kind, body), Accept::Metadata).await?;
        self.parse(&Method::PATCH, &path, &body, resource)
    }

    /// Reads one page of the metadata of what a label selector (its query form; empty for all) selects in a namespace
    /// (empty for all): the first, or the one after `page`. All pages together are as of one moment that isn't before the
    /// call for the first.
    ///
    /// # Errors
    /// If the call fails; [`Error::is_expired`] once the server has forgotten that moment.
    pub async fn metadata_page(
        &self,
        resource: &Resource,
        (namespace, selector): (&str, &str),
        page: Option<&str>,
    ) -> Result<Page, Error> {
        let mut path = format!("{}?limit={METADATA_PAGE_LIMIT}{}", kind_path(resource, namespace), selected(selector));
        if let Some(page) = page {
            path.push_str("&continue=");
            path.extend(utf8_percent_encode(page, NON_ALPHANUMERIC));
        }
        let problem = |problem: String| answer(&Method::GET, &path, problem);
        let (body, _place) = self.page(&self.search_pages, &path).await?;
        let text = std::str::from_utf8(&body).map_err(|error| problem(error.to_string()))?;
        let page = decode_page(text).map_err(|error| problem(error.to_string()))?;
        let parsed = page.items.iter().map(|item| Object::parse(item.get(), resource));
        let objects = parsed.collect::<Result<_, _>>().map_err(|error| problem(error.to_string()))?;
        Ok(Page { objects, next: page.next })
    }
}
