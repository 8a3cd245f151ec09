//! The functions that rules of Kubernetes 1.36 may call: what they take and what they give.
//!
//! The source is the environment that k8s.io/apiserver v0.36.3 makes for CRDs (cel/environment/base.go): the standard
//! library, optionals, strings 2, lists 3, sets, and Kubernetes' own. Nothing is evaluated here.

use super::check::Ty;

/// One form of a function: name, type of the receiver (empty for none), types of the arguments, type of the result.
///
/// `any` takes everything. Results: `elem` is the type of the receiver's items, `same` that of the receiver, `inner` what
/// an optional holds.
type Overload = (&'static str, &'static str, &'static str, &'static str);

const OVERLOADS: &[Overload] = &[
    ("size", "", "string", "int"),
    ("size", "", "bytes", "int"),
    ("size", "", "list", "int"),
    ("size", "", "map", "int"),
    ("size", "string", "", "int"),
    ("size", "bytes", "", "int"),
    ("size", "list", "", "int"),
    ("size", "map", "", "int"),
    ("int", "", "int", "int"),
    ("int", "", "uint", "int"),
    ("int", "", "double", "int"),
    ("int", "", "string", "int"),
    ("int", "", "timestamp", "int"),
    ("int", "", "duration", "int"),
    ("uint", "", "uint", "uint"),
    ("uint", "", "int", "uint"),
    ("uint", "", "double", "uint"),
    ("uint", "", "string", "uint"),
    ("double", "", "double", "double"),
    ("double", "", "int", "double"),
    ("double", "", "uint", "double"),
    ("double", "", "string", "double"),
    ("string", "", "string", "string"),
    ("string", "", "bool", "string"),
    ("string", "", "bytes", "string"),
    ("string", "", "double", "string"),
    ("string", "", "duration", "string"),
    ("string", "", "int", "string"),
    ("string", "", "timestamp", "string"),
    ("string", "", "uint", "string"),
    ("string", "", "ip", "string"),
    ("string", "", "cidr", "string"),
    ("bytes", "", "bytes", "bytes"),
    ("bytes", "", "string", "bytes"),
    ("bool", "", "bool", "bool"),
    ("bool", "", "string", "bool"),
    ("duration", "", "duration", "duration"),
    ("duration", "", "string", "duration"),
    ("duration", "", "int", "duration"),
    ("timestamp", "", "timestamp", "timestamp"),
    ("timestamp", "", "string", "timestamp"),
    ("timestamp", "", "int", "timestamp"),
    ("dyn", "", "any", "dyn"),
    ("type", "", "any", "type"),
    ("matches", "", "string,string", "bool"),
    ("matches", "string", "string", "bool"),
    ("contains", "string", "string", "bool"),
    ("startsWith", "string", "string", "bool"),
    ("endsWith", "string", "string", "bool"),
    ("getDate", "timestamp", "", "int"),
    ("getDate", "timestamp", "string", "int"),
    ("getDayOfMonth", "timestamp", "", "int"),
    ("getDayOfMonth", "timestamp", "string", "int"),
    ("getDayOfWeek", "timestamp", "", "int"),
    ("getDayOfWeek", "timestamp", "string", "int"),
    ("getDayOfYear", "timestamp", "", "int"),
    ("getDayOfYear", "timestamp", "string", "int"),
    ("getFullYear", "timestamp", "", "int"),
    ("getFullYear", "timestamp", "string", "int"),
    ("getMonth", "timestamp", "", "int"),
    ("getMonth", "timestamp", "string", "int"),
    ("getHours", "timestamp", "", "int"),
    ("getHours", "timestamp", "string", "int"),
    ("getHours", "duration", "", "int"),
    ("getMinutes", "timestamp", "", "int"),
    ("getMinutes", "timestamp", "string", "int"),
    ("getMinutes", "duration", "", "int"),
    ("getSeconds", "timestamp", "", "int"),
    ("getSeconds", "timestamp", "string", "int"),
    ("getSeconds", "duration", "", "int"),
    ("getMilliseconds", "timestamp", "", "int"),
    ("getMilliseconds", "timestamp", "string", "int"),
    ("getMilliseconds", "duration", "", "int"),
    ("hasValue", "optional", "", "bool"),
    ("value", "optional", "", "inner"),
    ("or", "optional", "optional", "same"),
    ("orValue", "optional", "any", "inner"),
    ("optional.of", "", "any", "optional"),
    ("optional.none", "", "", "dyn"),
    ("optional.ofNonZeroValue", "", "any", "optional"),
    ("charAt", "string", "int", "string"),
    ("indexOf", "string", "string", "int"),
    ("indexOf", "string", "string,int", "int"),
    ("indexOf", "list", "any", "int"),
    ("lastIndexOf", "string", "string", "int"),
    ("lastIndexOf", "string", "string,int", "int"),
    ("lastIndexOf", "list", "any", "int"),
    ("join", "list", "", "string"),
    ("join", "list", "string", "string"),
    ("lowerAscii", "string", "", "string"),
    ("upperAscii", "string", "", "string"),
    ("replace", "string", "string,string", "string"),
    ("replace", "string", "string,string,int", "string"),
    ("split", "string", "string", "list(string)"),
    ("split", "string", "string,int", "list(string)"),
    ("substring", "string", "int", "string"),
    ("substring", "string", "int,int", "string"),
    ("trim", "string", "", "string"),
    ("format", "string", "list", "string"),
    ("strings.quote", "", "string", "string"),
    ("find", "string", "string", "string"),
    ("findAll", "string", "string", "list(string)"),
    ("findAll", "string", "string,int", "list(string)"),
    ("isSorted", "list", "", "bool"),
    ("sum", "list", "", "elem"),
    ("min", "list", "", "elem"),
    ("max", "list", "", "elem"),
    ("slice", "list", "int,int", "same"),
    ("flatten", "list", "", "list(dyn)"),
    ("flatten", "list", "int", "list(dyn)"),
    ("distinct", "list", "", "same"),
    ("sort", "list", "", "same"),
    ("reverse", "list", "", "same"),
    ("lists.range", "", "int", "list(int)"),
    ("sets.contains", "", "list,list", "bool"),
    ("sets.equivalent", "", "list,list", "bool"),
    ("sets.intersects", "", "list,list", "bool"),
    ("url", "", "string", "url"),
    ("isURL", "", "string", "bool"),
    ("getScheme", "url", "", "string"),
    ("getHost", "url", "", "string"),
    ("getHostname", "url", "", "string"),
    ("getPort", "url", "", "string"),
    ("getEscapedPath", "url", "", "string"),
    ("getQuery", "url", "", "map(list(string))"),
    ("quantity", "", "string", "quantity"),
    ("isQuantity", "", "string", "bool"),
    ("sign", "", "quantity", "int"),
    ("isGreaterThan", "quantity", "quantity", "bool"),
    ("isLessThan", "quantity", "quantity", "bool"),
    ("compareTo", "quantity", "quantity", "int"),
    ("asApproximateFloat", "quantity", "", "double"),
    ("asInteger", "quantity", "", "int"),
    ("isInteger", "quantity", "", "bool"),
    ("add", "quantity", "quantity", "quantity"),
    ("add", "quantity", "int", "quantity"),
    ("sub", "quantity", "quantity", "quantity"),
    ("sub", "quantity", "int", "quantity"),
    ("ip", "", "string", "ip"),
    ("isIP", "", "string", "bool"),
    ("ip.isCanonical", "", "string", "bool"),
    ("family", "ip", "", "int"),
    ("isUnspecified", "ip", "", "bool"),
    ("isLoopback", "ip", "", "bool"),
    ("isLinkLocalMulticast", "ip", "", "bool"),
    ("isLinkLocalUnicast", "ip", "", "bool"),
    ("isGlobalUnicast", "ip", "", "bool"),
    ("cidr", "", "string", "cidr"),
    ("isCIDR", "", "string", "bool"),
    ("containsIP", "cidr", "string", "bool"),
    ("containsIP", "cidr", "ip", "bool"),
    ("containsCIDR", "cidr", "string", "bool"),
    ("containsCIDR", "cidr", "cidr", "bool"),
    ("ip", "cidr", "", "ip"),
    ("prefixLength", "cidr", "", "int"),
    ("masked", "cidr", "", "cidr"),
    ("semver", "", "string", "semver"),
    ("semver", "", "string,bool", "semver"),
    ("isSemver", "", "string", "bool"),
    ("isSemver", "", "string,bool", "bool"),
    ("major", "semver", "", "int"),
    ("minor", "semver", "", "int"),
    ("patch", "semver", "", "int"),
    ("isGreaterThan", "semver", "semver", "bool"),
    ("isLessThan", "semver", "semver", "bool"),
    ("compareTo", "semver", "semver", "int"),
    ("format.named", "", "string", "optional(format)"),
    ("format.dns1123Label", "", "", "format"),
    ("format.dns1123Subdomain", "", "", "format"),
    ("format.dns1035Label", "", "", "format"),
    ("format.qualifiedName", "", "", "format"),
    ("format.dns1123LabelPrefix", "", "", "format"),
    ("format.dns1123SubdomainPrefix", "", "", "format"),
    ("format.dns1035LabelPrefix", "", "", "format"),
    ("format.labelValue", "", "", "format"),
    ("format.uri", "", "", "format"),
    ("format.uuid", "", "", "format"),
    ("format.byte", "", "", "format"),
    ("format.date", "", "", "format"),
    ("format.datetime", "", "", "format"),
    ("validate", "format", "string", "optional(list(string))"),
];

/// Functions that are known but have no receiver in a CRD: those of the authorizer.
const AUTHORIZER: &[&str] = &[
    "path",
    "group",
    "serviceAccount",
    "resource",
    "subresource",
    "namespace",
    "name",
    "check",
    "allowed",
    "reason",
    "errored",
    "error",
    "fieldSelector",
    "labelSelector",
];

/// What a call is.
pub(super) enum Call<'a> {
    /// It fits, and gives this.
    Gives(Ty<'a>),
    /// There is no function of this name.
    Unknown,
    /// There is, but not for these types.
    Unfit,
}

/// Whether a name with a prefix is a function.
pub(super) fn is_qualified(name: &str) -> bool {
    OVERLOADS.iter().any(|(known, ..)| *known == name)
}

/// Finds the function that a call means.
pub(super) fn resolve<'a>(name: &str, receiver: Option<&Ty<'a>>, args: &[Ty<'a>]) -> Call<'a> {
    let mut known = AUTHORIZER.contains(&name);
    let mut found: Option<Ty<'a>> = None;
    for (own, wanted, params, result) in OVERLOADS {
        if *own != name {
            continue;
        }
        known = true;
        let fits = match receiver {
            Some(receiver) => !wanted.is_empty() && takes(wanted, receiver),
            None => wanted.is_empty(),
        };
        let params: Vec<&str> = params.split(',').filter(|param| !param.is_empty()).collect();
        if fits && params.len() == args.len() && params.iter().zip(args).all(|(param, arg)| takes(param, arg)) {
            let result = gives(result, receiver, args);
            // Several forms fit a value of unknown type; then only what they agree on is certain.
            found = Some(match found {
                Some(before) => before.join(result),
                None => result,
            });
        }
    }
    match found {
        Some(ty) => Call::Gives(ty),
        None if known => Call::Unfit,
        None => Call::Unknown,
    }
}

fn takes(param: &str, ty: &Ty<'_>) -> bool {
    match ty {
        Ty::Dyn => true,
        _ => param == "any" || ty.class() == param,
    }
}

fn gives<'a>(result: &str, receiver: Option<&Ty<'a>>, args: &[Ty<'a>]) -> Ty<'a> {
    match result {
        "same" => receiver.cloned().unwrap_or(Ty::Dyn),
        "elem" => receiver.map_or(Ty::Dyn, Ty::value),
        "inner" => match receiver {
            Some(Ty::Optional(inner)) => (**inner).clone(),
            _ => Ty::Dyn,
        },
        "optional" => Ty::Optional(Box::new(args.first().cloned().unwrap_or(Ty::Dyn))),
        "int" => Ty::Int,
        "uint" => Ty::Uint,
        "double" => Ty::Double,
        "string" => Ty::Text,
        "bytes" => Ty::Bytes,
        "bool" => Ty::Bool,
        "duration" => Ty::Span,
        "timestamp" => Ty::Instant,
        "type" => Ty::Type,
        "quantity" => Ty::Named("quantity", "kubernetes.Quantity"),
        "ip" => Ty::Named("ip", "net.IP"),
        "cidr" => Ty::Named("cidr", "net.CIDR"),
        "url" => Ty::Named("url", "kubernetes.URL"),
        "semver" => Ty::Named("semver", "kubernetes.Semver"),
        "format" => Ty::Named("format", "kubernetes.NamedFormat"),
        "list(string)" => Ty::List(Box::new(Ty::Text)),
        "list(int)" => Ty::List(Box::new(Ty::Int)),
        "list(dyn)" => Ty::List(Box::new(Ty::Dyn)),
        "map(list(string))" => Ty::Map(Box::new(Ty::List(Box::new(Ty::Text)))),
        "optional(format)" => Ty::Optional(Box::new(gives("format", None, &[]))),
        "optional(list(string))" => Ty::Optional(Box::new(gives("list(string)", None, &[]))),
        _ => Ty::Dyn,
    }
}
