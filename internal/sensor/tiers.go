package sensor

// CheckTiers reports a hook or a tier in Options.Tiers that there is not, before anything
// is loaded.
func CheckTiers(tiers map[string]string) error {
	return (&loader{forced: tiers}).checkForced(hooks)
}
