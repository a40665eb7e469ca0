// The store in etcd, over three real servers: the suites that every store and every shared store is held to.

import t from 'tap'
import { openEtcd } from '../../db/etcd.ts'
import { EtcdServers, noEtcd } from '../support/etcd-servers.ts'
import { testCluster } from './cluster-suite.ts'
import { testStore } from './store-suite.ts'

t.test('etcd', { skip: noEtcd() }, async (t) => {
  const etcd = await EtcdServers.start()
  t.teardown(() => etcd.close())
  let installations = 0
  const fresh = () => {
    const prefix = `/nearcast-${installations++}/`
    return ({ readOnly = false } = {}) =>
      openEtcd({ endpoints: etcd.endpoints, prefix, tls: null, user: null, readOnly })
  }
  t.test('as any store', async (t) => testStore(t, () => fresh()))
  t.test('as a shared one', async (t) => testCluster(t, async () => fresh()))
})
