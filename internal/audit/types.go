package audit

// The types of records that decoding knows (linux/audit.h; from 1100 and 2100, libaudit.h).
const (
	typeLogin         = 1006
	typeFirstUser     = 1100
	typeLastUser      = 1199
	typeUserAVC       = 1107
	typeUserTTY       = 1124
	typeUserCmd       = 1123
	typeAddUser       = 1114
	typeDelUser       = 1115
	typeAddGroup      = 1116
	typeDelGroup      = 1117
	typeServiceStart  = 1130
	typeServiceStop   = 1131
	typeFirstDaemon   = 1200
	typeLastDaemon    = 1299
	typeSyscall       = 1300
	typePath          = 1302
	typeSocketCall    = 1304
	typeConfigChange  = 1305
	typeSockaddr      = 1306
	typeCwd           = 1307
	typeExecve        = 1309
	typeObjPID        = 1318
	typeTTY           = 1319
	typeEOE           = 1320
	typeBprmFcaps     = 1321
	typeCapset        = 1322
	typeNetfilterPkt  = 1324
	typeSeccomp       = 1326
	typeProctitle     = 1327
	typeKernModule    = 1330
	typeFeatureChange = 1328
	typeEventListener = 1335
	typeUringOp       = 1336
	typeOpenat2       = 1337
	typeAVC           = 1400
	typeSelinuxErr    = 1401
	typeAVCPath       = 1402
	typeFirstMAC      = 1403
	typeFirstNetLabel = 1406
	typeLastMAC       = 1419
	typeIPE           = 1420
	typeLastIPE       = 1422
	typeLandlock      = 1423
	typeLandlockDom   = 1424
	typeLastLSM       = 1499
	typeFirstAppArm   = 1500
	typeLastAppArm    = 1599
	typeFirstAnom     = 1700
	typeAnomAbend     = 1701
	typeLastAnom      = 1799
	typeFirstInteg    = 1800
	typeLastInteg     = 1899
	typeKernel        = 2000
	typeFirstAnomUsr  = 2100
	typeLastUserRes   = 2999
)

// alone reports whether a record of a type is an event by itself. Those of the kernel's
// that are not belong to the system call in which they were written, and end with it.
func alone(typ uint16) bool {
	switch {
	case typ < typeSyscall, typ >= typeKernel,
		typ >= typeFirstMAC && typ <= typeLastMAC,
		typ >= typeFirstAnom && typ <= typeLastInteg:
		return true
	}
	switch typ {
	case typeTTY, typeNetfilterPkt, typeSeccomp:
		return true
	}
	return false
}
