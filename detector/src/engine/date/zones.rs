//! Time zones as logs abbreviate them.
//!
//! An abbreviation means a fixed offset here, whatever the season: `CET` is +1 in July too. That is
//! fail2ban's table, and a log that says `CET` in July means it.

/// Minutes east of Greenwich, and the abbreviations for it; single letters are military.
const TABLE: &[(i32, &str)] = &[
    (-720, "Y"),
    (-660, "X NUT SST"),
    (-600, "W CKT HAST HST TAHT TKT"),
    (-570, "MART MIT"),
    (-540, "V AKST GAMT GIT HADT HNY"),
    (-480, "U AKDT CIST HAY HNP PST PT"),
    (-420, "T HAP HNR MST PDT"),
    (-360, "S CST EAST GALT HAR HNC MDT"),
    (-300, "R CDT COT EASST ECT EST ET HAC HNE PET"),
    (-270, "HLV VET"),
    (-240, "Q AST BOT CLT COST EDT FKT GYT HAE HNA PYT"),
    (-210, "HNT NST NT"),
    (-180, "P ADT ART BRT CLST FKST GFT HAA PMST PYST SRT UYT WGT"),
    (-150, "HAT NDT"),
    (-120, "O BRST FNT PMDT UYST WGST"),
    (-60, "N AZOT CVT EGT"),
    (0, "Z EGST GMT UTC WET WT"),
    (60, "A CET DFT WAT WEDT WEST"),
    (120, "B CAT CEDT CEST EET SAST WAST"),
    (180, "C EAT EEDT EEST IDT MSK"),
    (210, "IRST"),
    (240, "D AMT AZT GET GST KUYT MSD MUT RET SAMT SCT"),
    (270, "AFT IRDT"),
    (300, "E AMST AQTT AZST HMT MAWT MVT PKT TFT TJT TMT UZT YEKT"),
    (330, "SLT"),
    (345, "NPT"),
    (360, "F ALMT BIOT BTT IOT KGT NOVT OMST YEKST"),
    (390, "CCT MMT"),
    (420, "G CXT DAVT HOVT ICT KRAT NOVST OMSST THA WIB"),
    (480, "H ACT AWST BDT BNT CAST HKT IRKT KRAST MYT PHT SGT ULAT WITA WST"),
    (540, "I AWDT IRKST JST KST PWT TLT WDT WIT YAKT"),
    (570, "ACST"),
    (600, "K AEST ChST PGT VLAT YAKST YAPT"),
    (630, "ACDT LHST"),
    (660, "L AEDT LHDT MAGT NCT PONT SBT VLAST VUT"),
    (690, "NFT"),
    (720, "M ANAST ANAT FJT GILT MAGST MHT NZST PETST PETT TVT WFT"),
    (780, "FJST NZDT"),
];

/// Seconds east of Greenwich that `text` names: `Z`, `CEST`, `+0200`, `-05:30`, `+01`, `CET+0100`
/// (both added).
pub(super) fn offset(text: &str) -> Option<i32> {
    let sign = text.find(['+', '-']).unwrap_or(text.len());
    let (abbreviation, digits) = text.split_at(sign);
    let base = match abbreviation {
        "" if digits.is_empty() => return None,
        "" => 0,
        name => {
            let (minutes, _) =
                TABLE.iter().find(|(_, names)| names.split(' ').any(|known| known == name))?;
            minutes * 60
        }
    };
    if digits.is_empty() {
        return Some(base);
    }
    let number = |text: &str| {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<i32>().ok())
            .flatten()
    };
    let (hours, minutes) = digits[1..].split_at_checked(2)?;
    let minutes = minutes.strip_prefix(':').unwrap_or(minutes);
    let seconds =
        number(hours)? * 3600 + if minutes.is_empty() { 0 } else { number(minutes)? * 60 };
    Some(base + if digits.starts_with('-') { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<i32>) {
        assert_eq!(offset(text), expect, "{text}");
    }

    #[test]
    fn a_zone_is_an_offset() {
        check("Z", Some(0));
        check("UTC", Some(0));
        check("CEST", Some(7200));
        check("NST", Some(-12_600));
        check("ChST", Some(36_000));
        check("+0200", Some(7200));
        check("-05:30", Some(-19_800));
        check("+01", Some(3600));
        check("CET+0100", Some(7200));
        check("cest", None);
        check("HOST", None);
        check("", None);
        check("+1", None);
        check("+01:", Some(3600));
        check("+é1", None);
    }
}
